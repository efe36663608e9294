//! `gradus tune`: what is faster on an adapter than the defaults, measured and kept.

#[cfg(feature = "gpu")]
mod search;
#[cfg(feature = "gpu")]
mod workloads;

#[cfg(feature = "gpu")]
use gpu::tune;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The device to measure, as `gradus devices` names it. By default the best one.
    #[arg(long)]
    device: Option<String>,
    /// How long to look for what is faster, in seconds.
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    seconds: f64,
    /// Measures, and writes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Removes what was found before, and measures nothing.
    #[arg(long, conflicts_with = "dry_run")]
    reset: bool,
    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// A time that a person would wait for.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0 to 86400".into()),
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let name = match arguments.device.as_deref().map(str::trim) {
        None | Some("" | "best") => gradus::Device::preference()?.device,
        Some(name) => name.to_string(),
    };
    if name == "cpu" {
        if arguments.json {
            println!("{}", serde_json::json!({ "device": "cpu", "fields": {}, "file": null }));
        } else {
            println!("There is nothing to tune on the CPU: its kernels are the same on every processor.");
        }
        return Ok(());
    }
    tune(arguments, &name)
}

#[cfg(not(feature = "gpu"))]
fn tune(_: &Arguments, name: &str) -> anyhow::Result<()> {
    // Says that there is no such device.
    gradus::Device::named(name)?;
    Ok(())
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::Arguments;
    use super::search::{Found, search};
    use crate::commands::table::table;
    use anyhow::Context;
    use gradus::gpu::device::{Adapter, Selector, select};
    use gradus::gpu::of_device;
    use gradus::gpu::tuning::{Table, path_of, write};
    use std::path::{Path, PathBuf};
    use std::time::Duration;
    use std::{fs, io};

    pub(super) fn tune(arguments: &Arguments, name: &str) -> anyhow::Result<()> {
        let mut adapters = Adapter::all();
        let at = match adapters.iter().position(|adapter| adapter.id() == name) {
            Some(at) => at,
            None => select(&adapters, &Selector::parse(name)).map_err(of_device)?.index,
        };
        let adapter = adapters.swap_remove(at);
        let file = path_of(adapter.description());
        if arguments.reset {
            return reset(file.as_deref());
        }
        if !arguments.json {
            println!("{}, driver {} {}", adapter.description(), adapter.driver(), adapter.driver_info());
        }
        let found = search(&adapter, Duration::from_secs_f64(arguments.seconds))?;
        let file = file.filter(|_| !arguments.dry_run);
        let measured = Table::of(adapter.description(), found.choices.clone());
        if let Some(path) = &file {
            write(&measured, path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if arguments.json {
            let Found { left_out, looked_at, .. } = found;
            let mut json = serde_json::to_value(&measured)?;
            json["device"] = adapter.id().into();
            json["file"] = file.map(|path| path.display().to_string()).into();
            json["left_out"] = left_out.into();
            json["looked_at"] = serde_json::json!({ "fields": looked_at.0, "of": looked_at.1 });
            println!("{}", serde_json::to_string_pretty(&json)?);
        } else {
            print!("{}", report(&found, file, arguments.dry_run));
        }
        Ok(())
    }

    fn reset(file: Option<&Path>) -> anyhow::Result<()> {
        let Some(path) = file else {
            println!("No table is in use.");
            return Ok(());
        };
        match fs::remove_file(path) {
            Ok(()) => println!("removed {}", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => println!("there is no {}", path.display()),
            Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
        Ok(())
    }

    /// What was found, as a table, and where it is kept.
    fn report(found: &Found, file: Option<PathBuf>, is_dry: bool) -> String {
        let rows: Vec<[String; 4]> = found
            .choices
            .iter()
            .map(|(name, choice)| {
                let gain = format!("{:+.0} %", 100.0 * (choice.gain - 1.0));
                [name.clone(), choice.default.to_string(), choice.chosen.to_string(), gain]
            })
            .collect();
        let mut text = match rows.is_empty() {
            true => "The defaults are as fast as anything that was tried.\n".to_string(),
            false => table(["field", "default", "chosen", "gain"], &rows) + "\n",
        };
        let (looked_at, all) = found.looked_at;
        if looked_at < all {
            text.push_str(&format!("There was time for {looked_at} of {all} fields: --seconds gives it more.\n"));
        }
        for line in &found.left_out {
            text.push_str(&format!("{line}\n"));
        }
        text.push_str(&match file {
            Some(path) => format!("written to {}\n", path.display()),
            None if is_dry => "nothing is written (--dry-run)\n".into(),
            None => "nothing is written: GRADUS_TUNING is off, or there is no cache folder\n".into(),
        });
        text
    }
}
