//! Which adapter to take.

use crate::{Adapter, Description, Error, Kind};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The best hardware: discrete, then integrated, then other. Never software.
    Best,
    /// The hardware adapter of this number.
    Gpu(usize),
    /// The software adapter of this number.
    Software(usize),
    /// The first adapter whose name contains this text, in whatever case.
    Named(String),
}

impl Selector {
    /// Reads `best`, `gpu`, `gpu:1`, `software`, `software:1`, or a part of a name.
    pub fn parse(text: &str) -> Selector {
        let text = text.trim();
        let (word, number) = text.split_once(':').unwrap_or((text, "0"));
        match (word.to_lowercase().as_str(), number.parse()) {
            ("best" | "", _) if !text.contains(':') => Selector::Best,
            ("gpu", Ok(n)) => Selector::Gpu(n),
            ("software", Ok(n)) => Selector::Software(n),
            _ => Selector::Named(text.into()),
        }
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Selector::Best => f.write_str("best"),
            Selector::Gpu(n) => write!(f, "gpu:{n}"),
            Selector::Software(0) => f.write_str("software"),
            Selector::Software(n) => write!(f, "software:{n}"),
            Selector::Named(name) => f.write_str(name),
        }
    }
}

/// What the user's environment says about [`Selector::Best`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `WGPU_ADAPTER_NAME`: a part of the adapter's name, in whatever case; may name software.
    pub adapter_name: Option<String>,
    /// `WGPU_POWER_PREF=low`: integrated GPUs before discrete ones.
    pub low_power: bool,
}

impl Preferences {
    /// Reads the two variables through `lookup`.
    pub fn new(lookup: impl Fn(&str) -> Option<String>) -> Preferences {
        Preferences {
            adapter_name: lookup("WGPU_ADAPTER_NAME").map(|n| n.trim().into()).filter(|n: &String| !n.is_empty()),
            low_power: lookup("WGPU_POWER_PREF").is_some_and(|p| p.trim().eq_ignore_ascii_case("low")),
        }
    }
}

/// An adapter that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its position in the list.
    pub index: usize,
    /// Why this one.
    pub reason: String,
}

/// Chooses among adapters as listed by [`Adapter::all`]. `WGPU_ADAPTER_NAME` and `WGPU_POWER_PREF` decide for
/// [`Selector::Best`]. Fails with [`Error::NoAdapter`], whose text lists what there is.
pub fn select(adapters: &[Adapter], selector: &Selector) -> Result<Choice, Error> {
    let descriptions: Vec<&Description> = adapters.iter().map(Adapter::description).collect();
    choose(&descriptions, selector, &Preferences::new(|name| std::env::var(name).ok()))
}

/// [`select`] on descriptions alone.
pub fn choose(adapters: &[&Description], selector: &Selector, preferences: &Preferences) -> Result<Choice, Error> {
    let refuse = |reason: String| {
        let reason = format!("{reason}; {}", way_out(adapters));
        Err(Error::NoAdapter { asked: selector.to_string(), reason })
    };
    let nth = |software: bool, n: usize| {
        let of_kind = adapters.iter().enumerate().filter(|(_, d)| (d.kind == Kind::Software) == software);
        of_kind.map(|(index, _)| index).nth(n)
    };
    let named = |name: &str| {
        let name = name.to_lowercase();
        adapters.iter().position(|d| !name.is_empty() && d.name.to_lowercase().contains(&name))
    };
    match selector {
        Selector::Gpu(n) => match nth(false, *n) {
            Some(index) => Ok(Choice { index, reason: format!("{selector} was asked for") }),
            None => refuse(format!("there are {} hardware adapters", count(adapters, false))),
        },
        Selector::Software(n) => match nth(true, *n) {
            Some(index) => Ok(Choice { index, reason: format!("{selector} was asked for") }),
            None => refuse(format!("there are {} software adapters", count(adapters, true))),
        },
        Selector::Named(name) => match named(name) {
            Some(index) => Ok(Choice { index, reason: format!("its name contains \"{name}\"") }),
            None => refuse(format!("no adapter's name contains \"{name}\"")),
        },
        Selector::Best => {
            if let Some(name) = &preferences.adapter_name {
                return match named(name) {
                    Some(index) => Ok(Choice { index, reason: format!("its name contains WGPU_ADAPTER_NAME, {name}") }),
                    None => refuse(format!("no adapter's name contains WGPU_ADAPTER_NAME, \"{name}\"")),
                };
            }
            let rank = |d: &Description| match d.kind {
                Kind::Integrated if preferences.low_power => 0,
                kind => 1 + kind.rank(),
            };
            let hardware = adapters.iter().enumerate().filter(|(_, d)| d.kind != Kind::Software);
            // The first of those that are equal.
            match hardware.min_by_key(|(_, d)| rank(d)) {
                Some((index, d)) if preferences.low_power => {
                    Ok(Choice { index, reason: format!("first {} GPU, as WGPU_POWER_PREF is low", d.kind.name()) })
                }
                Some((index, d)) => {
                    let alone = count(adapters, false) == 1;
                    let which = if alone { "the only hardware adapter" } else { "the best hardware adapter" };
                    Ok(Choice { index, reason: format!("{which} ({})", d.kind.name()) })
                }
                None if adapters.is_empty() => refuse("wgpu found no adapter at all".into()),
                None => refuse(
                    "all adapters run shaders on the CPU, where the CPU backend is faster, so none is taken by itself"
                        .into(),
                ),
            }
        }
    }
}

fn count(adapters: &[&Description], software: bool) -> usize {
    adapters.iter().filter(|d| (d.kind == Kind::Software) == software).count()
}

/// What there is, and how to go on.
fn way_out(adapters: &[&Description]) -> String {
    if adapters.is_empty() {
        return "install a driver for Vulkan, Metal or DX12, see whether WGPU_BACKEND leaves one, or use the CPU"
            .into();
    }
    let list: Vec<String> = adapters.iter().map(|d| d.to_string()).collect();
    format!("there are: {}; name one of these, or use the CPU", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(id: &str, name: &str, kind: Kind) -> Description {
        let (driver, driver_info, name) = (String::new(), String::new(), name.into());
        let (backend, duplicate, vendor, device) = ("Vulkan", false, 0, 0);
        Description { id: id.into(), name, driver, driver_info, kind, backend, duplicate, vendor, device }
    }

    fn machine() -> Vec<Description> {
        vec![
            adapter("gpu:0", "GeForce RTX 4090", Kind::Discrete),
            adapter("gpu:1", "Intel Iris Xe", Kind::Integrated),
            adapter("software", "llvmpipe (LLVM 15)", Kind::Software),
        ]
    }

    fn chosen(adapters: &[Description], selector: &str, variables: &[(&str, &str)]) -> Result<Choice, Error> {
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        let adapters: Vec<&Description> = adapters.iter().collect();
        choose(&adapters, &Selector::parse(selector), &Preferences::new(lookup))
    }

    #[test]
    fn words_are_read() {
        assert_eq!(Selector::parse("gpu"), Selector::Gpu(0));
        assert_eq!(Selector::parse(" GPU:12 "), Selector::Gpu(12));
        assert_eq!(Selector::parse("software"), Selector::Software(0));
        assert_eq!(Selector::parse("Software:1"), Selector::Software(1));
        assert_eq!(Selector::parse("best"), Selector::Best);
        assert_eq!(Selector::parse("gpu:x"), Selector::Named("gpu:x".into()));
        assert_eq!(Selector::parse("radeon"), Selector::Named("radeon".into()));
        for text in ["best", "gpu:3", "software", "software:2", "radeon"] {
            assert_eq!(Selector::parse(text).to_string(), text);
        }
    }

    #[test]
    fn best_is_hardware_by_kind() {
        let machine = machine();
        assert_eq!(chosen(&machine, "best", &[]).unwrap().index, 0);
        assert_eq!(chosen(&machine, "best", &[("WGPU_POWER_PREF", "LOW")]).unwrap().index, 1);
        assert_eq!(chosen(&machine, "best", &[("WGPU_POWER_PREF", "high")]).unwrap().index, 0);
        assert_eq!(chosen(&machine[1..], "best", &[]).unwrap().index, 0);
        let others = [
            adapter("gpu:0", "who knows", Kind::Other),
            adapter("gpu:1", "VirtIO", Kind::Virtual),
            adapter("software", "lavapipe", Kind::Software),
        ];
        assert_eq!(chosen(&others, "best", &[]).unwrap().index, 1);
        assert_eq!(chosen(&others[..1], "best", &[("WGPU_POWER_PREF", "low")]).unwrap().index, 0);
    }

    #[test]
    fn software_is_taken_only_by_name() {
        let machine = machine();
        let text = chosen(&machine[2..], "best", &[]).unwrap_err().to_string();
        assert!(text.contains("software (llvmpipe (LLVM 15), software, Vulkan)"), "{text}");
        assert!(text.contains("none is taken by itself") && text.contains("or use the CPU"), "{text}");
        assert_eq!(chosen(&machine, "software", &[]).unwrap().index, 2);
        assert_eq!(chosen(&machine, "LLVMpipe", &[]).unwrap().index, 2);
        assert_eq!(chosen(&machine, "best", &[("WGPU_ADAPTER_NAME", "llvm")]).unwrap().index, 2);
    }

    #[test]
    fn numbers_and_names() {
        let machine = machine();
        assert_eq!(chosen(&machine, "gpu:1", &[]).unwrap().index, 1);
        assert_eq!(chosen(&machine, "iris", &[]).unwrap().index, 1);
        // WGPU_ADAPTER_NAME is about the best adapter, not about one that was named.
        assert_eq!(chosen(&machine, "gpu:0", &[("WGPU_ADAPTER_NAME", "iris")]).unwrap().index, 0);
        let text = chosen(&machine, "gpu:2", &[]).unwrap_err().to_string();
        assert!(text.contains("\"gpu:2\"") && text.contains("2 hardware adapters"), "{text}");
        assert!(chosen(&machine, "software:1", &[]).is_err());
        assert!(chosen(&machine, "radeon", &[]).is_err());
        let text = chosen(&machine, "best", &[("WGPU_ADAPTER_NAME", "radeon")]).unwrap_err().to_string();
        assert!(text.contains("WGPU_ADAPTER_NAME"), "{text}");
        let text = chosen(&[], "best", &[]).unwrap_err().to_string();
        assert!(text.contains("install a driver"), "{text}");
    }
}
