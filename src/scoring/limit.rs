//! Ends runs that take too long.

use std::time::{Duration, Instant};

use crate::background;
use crate::cancel::CancelToken;
use crate::engine::RunContext;
use crate::error::{Result, bail};

/// Does `run`, which is cancelled once it takes longer than `max_run`, or when its query is.
///
/// # Errors
/// Those of `run`; a run that took too long, with the option that says so.
pub(super) fn limited<T>(
    label: &str,
    max_run: Option<Duration>,
    context: &RunContext,
    run: impl FnOnce(&RunContext) -> Result<T>,
) -> Result<T> {
    let Some(max_run) = max_run else { return run(context) };
    // Of this run alone: the query's token may have other runs.
    let cancel = CancelToken::default();
    let (start, counts, before) = (Instant::now(), context.counts.clone(), context.counts.waited_until_now());
    // The time in the line before a device is not the run's own.
    let own = move || start.elapsed().saturating_sub(counts.waited_until_now().saturating_sub(before));
    let timer = background::once(move || max_run.saturating_sub(own()), {
        let cancel = cancel.clone();
        move || cancel.cancel()
    })?;
    let of_run = RunContext { cancel: cancel.clone(), ..context.clone() };
    let forward = {
        let cancel = cancel.clone();
        move || cancel.cancel()
    };
    let result = context.cancel.with_hook(forward, || run(&of_run));
    drop(timer);
    match result {
        Some(Err(_)) if cancel.is_cancelled() && !context.cancel.is_cancelled() => bail!(
            RunTooLong,
            "model '{label}': a run took longer than its option max_run allows ({})",
            humantime::format_duration(max_run)
        ),
        Some(result) => result,
        None => bail!(Cancelled, "model '{label}': the query was cancelled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::DeviceQueue;
    use crate::error::ErrorKind;

    fn until_cancelled(context: &RunContext) -> Result<()> {
        while !context.cancel.is_cancelled() {
            std::thread::yield_now();
        }
        bail!(Cancelled, "it was cancelled")
    }

    #[test]
    fn the_line_before_a_device_is_not_counted() {
        let (queue, limit) = (DeviceQueue::default(), Some(Duration::from_millis(40)));
        let (release, first) = (CancelToken::default(), RunContext::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                queue.run(&first, || {
                    while !release.is_cancelled() {
                        std::thread::yield_now();
                    }
                })
            });
            let second = scope.spawn(|| {
                let context = RunContext::default();
                limited("m/1", limit, &context, |context| Ok(queue.run(context, || ())))
            });
            while queue.waiting() == 0 && !second.is_finished() {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(200));
            release.cancel();
            assert!(matches!(second.join().expect("no panic"), Ok(Some(())) | Ok(None)));
        });
    }

    #[test]
    fn long_runs_end_at_the_limit_and_with_their_query() {
        let context = RunContext::default();
        let limit = Some(Duration::from_millis(5));
        let error = limited("m/1", limit, &context, until_cancelled).expect_err("it takes too long");
        assert_eq!(error.kind(), ErrorKind::RunTooLong);
        assert_eq!(error.to_string(), "model 'm/1': a run took longer than its option max_run allows (5ms)");
        assert!(!context.cancel.is_cancelled(), "other runs of the query go on");

        let hour = Some(Duration::from_secs(3600));
        std::thread::scope(|scope| {
            let run = scope.spawn(|| limited("m/1", hour, &context, until_cancelled));
            context.cancel.cancel();
            let error = run.join().expect("no panic").expect_err("the query is gone");
            assert_eq!(error.kind(), ErrorKind::Cancelled);
        });
    }
}
