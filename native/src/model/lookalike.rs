//! Files that are taken for models, and are something else.

/// What a file that begins with `start` is, and what to do about it, if it is known and no ONNX model.
pub(super) fn recognized(start: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
    let begins = |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if begins("version https://git-lfs") {
        return Some("it is a pointer of Git LFS: fetch the file itself with `git lfs pull`");
    }
    if begins("<!doctype") || begins("<html") || begins("<?xml") {
        return Some(
            "it is a page of a web site, such as an error or a login: check the address that it was fetched from",
        );
    }
    if begins("{") {
        return Some("it is JSON, such as XGBoost and LightGBM write: convert the model to ONNX");
    }
    if begins("tree\n") || begins("tree\r\n") {
        return Some("it is a model of LightGBM: convert it to ONNX");
    }
    Some(match start {
        [0x1f, 0x8b, ..] => "it is compressed with gzip: unpack it first",
        [b'P', b'K', 3, 4, ..] => {
            "it is a ZIP archive, such as PyTorch and Keras write: unpack it, or export the model to ONNX"
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed with Zstandard: unpack it first",
        [0x80, 2..=5, ..] => "it is a pickle of Python: export the model to ONNX, for instance with skl2onnx",
        [0x89, b'H', b'D', b'F', ..] => "it is HDF5, such as Keras writes: export the model to ONNX",
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => "it is a model of TensorFlow Lite: convert it to ONNX",
        [_, _, _, _, b'O', b'R', b'T', b'M', ..] => {
            "it is in ONNX Runtime's own format: take the .onnx file that it was made from"
        }
        [b'P', b'A', b'R', b'1', ..] => "it is a Parquet file",
        start if !start.is_empty() && start.iter().all(|byte| byte.is_ascii_graphic() || b" \t\r\n".contains(byte)) => {
            "it is a text"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_recognized_and_models_are_not() {
        for (start, expected) in [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:".as_slice(), "Git LFS"),
            (b"\n<!DOCTYPE html><html>", "web site"),
            (b"\x1f\x8b\x08\x00", "gzip"),
            (b"\x80\x04\x95\x10", "pickle"),
            (b"PK\x03\x04", "ZIP"),
            (b"{\"learner\":{", "JSON"),
            (b"tree\nversion=v4\n", "LightGBM"),
            (b"id,age\n1,2\n", "a text"),
        ] {
            let found = recognized(start).expect(expected);
            assert!(found.contains(expected), "{found}");
        }
        assert_eq!(recognized(b"\x08\x0a\x12\x08skl2onnx"), None);
        assert_eq!(recognized(b""), None);
    }
}
