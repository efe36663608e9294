//! `gradus devices`: what this machine has, and what would be taken.

use super::table::table;
use gradus::Device;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Prints JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// A device as the command shows it.
struct Row {
    id: String,
    name: String,
    kind: &'static str,
    backend: &'static str,
    driver: String,
    /// The largest array, and the largest allocation, in bytes.
    memory: Option<(u64, u64)>,
    /// Name, and what there is to say of it where it is there.
    features: Vec<(&'static str, Option<String>)>,
    note: &'static str,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut rows = adapters();
    rows.push(Row {
        id: "cpu".into(),
        name: Device::cpu().description(),
        kind: "cpu",
        backend: "gradus",
        driver: String::new(),
        memory: None,
        features: Vec::new(),
        note: "",
    });
    let best = Device::preference();
    if arguments.json {
        let best = match &best {
            Ok(best) => json!({ "device": best.device, "reason": best.reason }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        let devices: Vec<Value> = rows.iter().map(Row::json).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "devices": devices, "best": best }))?);
        return Ok(());
    }
    let heading = ["device", "name", "kind", "back end", "driver", "largest array", "largest buffer"];
    println!("{}\n", table(heading, &rows.iter().map(Row::cells).collect::<Vec<_>>()));
    for row in rows.iter().filter(|row| !row.features.is_empty()) {
        println!("{}: {}{}", row.id, row.feature_text(), row.note);
    }
    println!("\nA device is chosen by name: GRADUS_DEVICE={}, or --device in the examples.", rows[0].id);
    match best {
        Ok(best) => println!("By default it is {}: {}.", best.device, best.reason),
        Err(error) => println!("By default there is none: {error}"),
    }
    Ok(())
}

#[cfg(feature = "gpu")]
fn adapters() -> Vec<Row> {
    use gradus::gpu::device::Adapter;
    let row = |adapter: Adapter| {
        let (description, limits) = (adapter.description(), adapter.limits());
        let driver = [&description.driver[..], &description.driver_info[..]].join(" ");
        let features = adapter.capabilities().into_iter();
        Row {
            id: description.id.clone(),
            name: description.name.clone(),
            kind: description.kind.name(),
            backend: description.backend,
            driver: driver.trim().into(),
            memory: Some((limits.max_storage_buffer_binding_size.min(limits.max_buffer_size), limits.max_buffer_size)),
            features: features.map(|c| (c.name, c.present.then_some(c.detail))).collect(),
            note: if description.duplicate { " (the same device as one above, by another back end)" } else { "" },
        }
    };
    Adapter::all().into_iter().map(row).collect()
}

#[cfg(not(feature = "gpu"))]
fn adapters() -> Vec<Row> {
    Vec::new()
}

impl Row {
    fn cells(&self) -> [String; 7] {
        let (array, buffer) = self.memory.map_or_else(Default::default, |(a, b)| (bytes(a), bytes(b)));
        [self.id.clone(), self.name.clone(), self.kind.into(), self.backend.into(), self.driver.clone(), array, buffer]
    }

    fn feature_text(&self) -> String {
        let there = self.features.iter().filter_map(|(name, detail)| match detail.as_deref()? {
            "" => Some(name.to_string()),
            detail => Some(format!("{name} ({detail})")),
        });
        let missing: Vec<&str> = self.features.iter().filter(|(_, d)| d.is_none()).map(|(name, _)| *name).collect();
        let there = there.collect::<Vec<_>>().join(", ");
        if missing.is_empty() { there } else { format!("{there}; without {}", missing.join(", ")) }
    }

    fn json(&self) -> Value {
        let features: serde_json::Map<String, Value> = self
            .features
            .iter()
            .map(|(name, detail)| {
                let value = match detail.as_deref() {
                    None => Value::Bool(false),
                    Some("") => Value::Bool(true),
                    Some(detail) => Value::String(detail.into()),
                };
                (name.replace(' ', "_"), value)
            })
            .collect();
        json!({
            "device": self.id,
            "name": self.name,
            "kind": self.kind,
            "backend": self.backend,
            "driver": self.driver,
            "largest_array_bytes": self.memory.map(|(array, _)| array),
            "largest_buffer_bytes": self.memory.map(|(_, buffer)| buffer),
            "features": features,
        })
    }
}

/// Bytes in the largest unit that leaves a whole number or two digits.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (count.checked_ilog2().unwrap_or(0) / 10).min(4) as usize;
    let value = count as f64 / (1u64 << (10 * unit)) as f64;
    if value.fract() == 0.0 { format!("{value} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_short() {
        assert_eq!([0, 128 << 20, 3 << 29, 1u64 << 50].map(bytes), ["0 B", "128 MiB", "1.5 GiB", "1024 TiB"]);
    }
}
