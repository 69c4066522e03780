//! Processes that are killed while they write what is remembered: others open it, and no value is wrong.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use common::{Ran, shell};

/// Texts that are scored.
const TEXTS: usize = 2000;

/// The shell, whose cache is `cache`, that prints a number for each text.
fn scoring(cache: &Path, remember: &str) -> Command {
    let create =
        format!("CREATE MODEL m FROM 'tests/models/texts/encoder' OPTIONS (remember '{remember}', batch_size 64)");
    let texts = format!("SELECT i, 'the parcel ' || i || ' is late' AS text FROM generate_series(1, {TEXTS}) AS t(i)");
    let query = format!("SELECT i, embed('m', text)[1] AS first FROM ({texts}) ORDER BY i");
    let mut command = shell();
    command.env("DATAFUSION_PREDICT_CACHE", cache);
    command.args(["-q", "--format", "csv", "-c", &create, "-c", &query]).stdin(Stdio::null());
    command
}

fn numbers(ran: &Ran) -> Vec<f32> {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines = ran.stdout.lines().skip(1).filter_map(|line| line.split_once(','));
    lines.map(|(_, number)| number.parse().expect("a number")).collect()
}

#[test]
fn what_is_remembered_outlives_kills() {
    let kills: usize = std::env::var("REMEMBER_KILLS").map_or(10, |kills| kills.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let start = Instant::now();
    let expected = numbers(&scoring(folder.path(), "0").output().expect("the shell").into());
    let whole = start.elapsed();
    assert_eq!(expected.len(), TEXTS);
    for kill in 0..kills {
        let mut process = scoring(folder.path(), "100m").stdout(Stdio::null()).spawn().expect("the shell");
        // At other moments each time, most of them within the scoring.
        sleep(whole.mul_f64(0.3 + 0.7 * (kill * 7919 % 101) as f64 / 101.0));
        process.kill().expect("it is ours");
        process.wait().expect("it ends");
        if kill % 5 == 4 || kill + 1 == kills {
            let found = numbers(&scoring(folder.path(), "100m").output().expect("the shell").into());
            assert_eq!(found.len(), TEXTS);
            for (row, (expected, found)) in expected.iter().zip(&found).enumerate() {
                assert!((expected - found).abs() < 1e-4, "row {row}: {found} is not {expected}");
            }
            // Not all that later runs begin with is there already.
            std::fs::read_dir(folder.path().join("remembered")).expect("the store").for_each(|store| {
                let store = store.expect("a store").path();
                let segments = std::fs::read_dir(store).expect("its segments").map(|it| it.expect("a file").path());
                segments.step_by(2).for_each(|segment| std::fs::remove_file(segment).expect("a segment"));
            });
        }
    }
}
