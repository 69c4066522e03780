//! Which versions of ONNX are known here.

use crate::model::Model;

/// The newest versions that are known here: those of ONNX 1.23.
const NEWEST_IR: i64 = 14;
const NEWEST_OPSETS: [(&str, &str, i64); 2] = [("", "ai.onnx", 28), ("ai.onnx.ml", "ai.onnx.ml", 5)];

/// The version of the format or of an operator set in which `model` is written, if it is newer than anyone knew when this
/// was built: its operators may mean something else.
pub(super) fn newer_than_known(model: &Model) -> Option<String> {
    let ir = model.metadata().ir_version;
    if ir > NEWEST_IR {
        return Some(format!(
            "it is written in version {ir} of the ONNX format, the newest that is known is {NEWEST_IR}"
        ));
    }
    let opsets = model.opsets();
    NEWEST_OPSETS.iter().find_map(|(domain, name, newest)| {
        let version = *opsets.get(domain)?;
        let text =
            format!("it is written in version {version} of the operators {name}, the newest that is known is {newest}");
        (version > *newest).then_some(text)
    })
}
