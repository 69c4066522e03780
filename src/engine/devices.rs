//! The devices that share a model's batches.

use std::fmt;
use std::str::FromStr;

use super::Device;
use crate::error::{Error, Result, bail, error};

/// One device, or several of a kind, each of which has a copy of the model and runs some of its batches: `cuda:0,1`.
///
/// ```
/// use datafusion_predict::{Device, Devices};
///
/// let both: Devices = "cuda:0,1".parse()?;
/// assert_eq!(both.iter().collect::<Vec<_>>(), [Device::Cuda(0), Device::Cuda(1)]);
/// # Ok::<(), datafusion_predict::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Devices {
    first: Device,
    others: Vec<Device>,
}

impl Devices {
    /// The first one, which stands for all: they are of one kind.
    pub fn first(&self) -> Device {
        self.first
    }

    /// All of them, in the order in which they were named.
    pub fn iter(&self) -> impl Iterator<Item = Device> + '_ {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }
}

impl Default for Devices {
    fn default() -> Self {
        Device::default().into()
    }
}

impl From<Device> for Devices {
    fn from(device: Device) -> Self {
        Self { first: device, others: vec![] }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.others.iter().filter_map(|device| device.number()).try_for_each(|number| write!(f, ",{number}"))
    }
}

impl FromStr for Devices {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut names = text.split(',').map(str::trim);
        let first: Device = names.next().unwrap_or_default().parse()?;
        let wrong = || {
            error!(
                InvalidOption,
                "option 'device' is '{text}': several devices are of one kind and have numbers, as in 'cuda:0,1'"
            )
        };
        let mut devices = Self::from(first);
        for name in names {
            // Of the first one's kind, unless it says another: `cuda:0,1`, `cuda:0,cuda:1`.
            let device = match name.parse::<u16>() {
                Ok(number) => first.with_number(number),
                Err(_) => name.parse().ok(),
            };
            let is_like_first = |device: &Device| device.number().is_some() && device.kind() == first.kind();
            let device = device.filter(is_like_first).ok_or_else(wrong)?;
            if devices.iter().any(|other| other == device) {
                bail!(InvalidOption, "option 'device' is '{text}': it names {device} twice");
            }
            devices.others.push(device);
        }
        Ok(devices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_are_written_as_they_are_read() {
        for text in ["cpu", "cuda:0", "cuda:0,1", "cuda:3,1,2", "tensorrt:0,1", "webgpu", "auto"] {
            assert_eq!(text.parse::<Devices>().expect("devices").to_string(), text);
        }
        assert_eq!("CUDA, cuda:1".parse::<Devices>().expect("devices").to_string(), "cuda:0,1");
        for text in ["", "cuda:0,", "cuda:0,0", "cuda:0,tensorrt:1", "webgpu,1", "cpu,cpu", "auto,1", "cuda:0,x"] {
            assert!(text.parse::<Devices>().is_err(), "{text}");
        }
    }
}
