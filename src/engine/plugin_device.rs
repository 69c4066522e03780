//! What plug-ins of an engine bring.

/// A device that a plug-in of an engine brings, or a plug-in that finds none here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginDevice {
    /// As the option `device` names its kind: `openvino`; `None` for a kind that has no name there.
    pub device: Option<String>,
    /// The hardware, by its maker and kind: `Intel GPU`.
    pub name: Option<String>,
    /// The plug-in's name: that of its file.
    pub plug_in: String,
    /// Whether there is such a device.
    pub is_available: bool,
}
