//! `gradus bench`: how fast the devices of this machine are, and how near to what they can do.

pub(super) mod inputs;
pub(super) mod measure;
mod report;
mod workload;
mod workloads;

use anyhow::{Context, bail};
use gradus::train::picture::BarChart;
use gradus::{Ceilings, Device, ErrorKind, Tensor};
use measure::Measurement;
use report::Entry;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use workload::{Suite, Workload};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A device to measure, as `gradus devices` names it; may be repeated. By default the best one, and the CPU.
    #[arg(long)]
    device: Vec<String>,
    /// How much to measure: what says most, or everything.
    #[arg(long, value_enum, default_value_t = SuiteName::Quick)]
    suite: SuiteName,
    /// Measures this workload alone; may be repeated. `cold` makes the device, multiplies two matrices, prints a number and
    /// ends.
    #[arg(long)]
    workload: Vec<String>,
    /// Prints a line of JSON for each workload instead of tables.
    #[arg(long)]
    json: bool,
    /// Appends the measurements, as lines of JSON, to this file, to compare with later.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compares with the measurements of an earlier --save; fails if one is slower beyond the noise.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Draws a bar for each workload: how much of the ceiling it reaches. One picture per device, in this folder.
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
    /// Measures each kernel of an iteration: a table, and in this folder a trace for Perfetto or chrome://tracing.
    #[arg(long, value_name = "FOLDER", conflicts_with = "json")]
    profile: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum SuiteName {
    Quick,
    Full,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let before = arguments.against.as_deref().map(read).transpose()?;
    let devices = devices(&arguments.device)?;
    if arguments.workload.iter().any(|name| name == "cold") {
        return devices.iter().try_for_each(cold);
    }
    let workloads = chosen(arguments)?;
    let (mut measured, mut failed) = (Vec::new(), Vec::new());
    for device in &devices {
        measured.extend(measure_all(device, &workloads, arguments, &mut failed)?);
    }
    let compared = before.map_or(Ok(()), |before| compare(&measured, &before, arguments.json));
    if failed.is_empty() {
        return compared;
    }
    if let Err(error) = compared {
        eprintln!("{error}");
    }
    bail!("failed: {}", failed.join(", "))
}

fn chosen(arguments: &Arguments) -> anyhow::Result<Vec<Workload>> {
    let mut all = workloads::all();
    if arguments.workload.is_empty() {
        let most = match arguments.suite {
            SuiteName::Quick => Suite::Quick,
            SuiteName::Full => Suite::Full,
        };
        all.retain(|workload| workload.suite <= most);
        return Ok(all);
    }
    for name in &arguments.workload {
        if !all.iter().any(|workload| workload.name == *name) {
            let names: Vec<&str> = all.iter().map(|workload| &workload.name[..]).collect();
            bail!("there is no workload \"{name}\"; there are cold, {}", names.join(", "));
        }
    }
    all.retain(|workload| arguments.workload.contains(&workload.name));
    Ok(all)
}

fn devices(names: &[String]) -> anyhow::Result<Vec<Device>> {
    if !names.is_empty() {
        return names.iter().map(|name| Ok(Device::named(name)?)).collect();
    }
    let best = Device::best()?;
    let cpu = Device::cpu();
    Ok(if best == cpu { vec![cpu] } else { vec![best, cpu] })
}

/// Measures the workloads. Of a suite all that can be: what a failure says goes to standard error, its name into `failed`.
fn measure_all(
    device: &Device,
    workloads: &[Workload],
    arguments: &Arguments,
    failed: &mut Vec<String>,
) -> anyhow::Result<Vec<Measurement>> {
    // One line for a program that compares: what the device can do is not its question.
    let ceilings = if arguments.json { None } else { Some(device.ceilings()?) };
    if let Some(ceilings) = &ceilings {
        println!("{device}: {}\n{}\n", device.description(), report::ceilings_line(ceilings));
    }
    let shows_progress = ceilings.is_some() && std::io::stderr().is_terminal();
    let clear = if shows_progress { "\r\x1b[K" } else { "" };
    let (mut entries, mut skipped) = (Vec::new(), Vec::new());
    for workload in workloads {
        if shows_progress {
            eprint!("{clear}{} on {device} …", workload.name);
        }
        let measurement = match Measurement::of(workload, device) {
            Ok(measurement) => measurement,
            // Who asks for a workload by name gets it, or the reason why not.
            Err(error) if !arguments.workload.is_empty() => {
                return Err(error).with_context(|| format!("{} on {device}", workload.name));
            }
            Err(error) if is_beyond_device(error.kind()) => {
                skipped.push((workload.name.clone(), error.kind().to_string()));
                continue;
            }
            Err(error) => {
                let name = format!("{} on {device}", workload.name);
                eprintln!("{clear}{name}: {error}");
                failed.push(name);
                // Nothing runs on it any more.
                if device.lost().is_some() {
                    break;
                }
                continue;
            }
        };
        if arguments.json {
            println!("{}", serde_json::to_string(&measurement)?);
        }
        if let Some(path) = &arguments.save {
            append(path, &measurement)?;
        }
        entries.push(Entry { measurement, unit: workload.unit, cost: workload.cost });
    }
    eprint!("{clear}");
    let skipped = report::skipped(&skipped);
    // Standard output is for lines of JSON then.
    match &ceilings {
        None => eprint!("{skipped}"),
        Some(ceilings) => println!("{}\n{skipped}", report::results(&entries, ceilings)),
    }
    if let (Some(ceilings), Some(folder)) = (&ceilings, &arguments.pictures) {
        let path = folder.join(format!("{}.svg", device.name().replace(':', "-")));
        picture(device, &entries, ceilings).save(&path)?;
        println!("picture: {}\n", path.display());
    }
    if let Some(folder) = &arguments.profile {
        let is_measured = |workload: &&Workload| entries.iter().any(|entry| entry.measurement.w == workload.name);
        workloads.iter().filter(is_measured).try_for_each(|workload| profile(workload, device, folder))?;
    }
    Ok(entries.into_iter().map(|entry| entry.measurement).collect())
}

/// Shows the kernels of an iteration.
fn profile(workload: &Workload, device: &Device, folder: &Path) -> anyhow::Result<()> {
    let mut run = (workload.prepare)(device)?;
    let ((), mut profile) = device.profile(|| {
        (run.iterate)(1)?;
        (run.iterate)(1)
    })?;
    // The first iteration compiles kernels besides.
    profile.runs.drain(..profile.runs.len() / 2);
    let profile = profile.against(device.ceilings()?);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("{}-{}.json", workload.name, device.name().replace(':', "-")));
    fs::write(&path, profile.to_chrome_trace()).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}: {profile}trace: {}\n", workload.name, path.display());
    Ok(())
}

/// Whether a workload failed since the device has no such dtype, or no room for it.
fn is_beyond_device(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NoDType { .. }
            | ErrorKind::TooLarge { .. }
            | ErrorKind::BindingTooLarge { .. }
            | ErrorKind::OutOfMemory { .. }
    )
}

/// A bar for each workload that has a ceiling.
fn picture(device: &Device, entries: &[Entry], ceilings: &Ceilings) -> BarChart {
    let bars = entries.iter().filter_map(|entry| {
        let (share, bound) = entry.share(ceilings)?;
        Some((format!("{} ({bound})", entry.measurement.w), share))
    });
    let title = format!("{device}: percent of what binds");
    bars.fold(BarChart::new(title).unit("%"), |chart, (name, share)| chart.bar(name, share))
}

/// Process start to first result: one product, one number.
fn cold(device: &Device) -> anyhow::Result<()> {
    let (a, b) = (Tensor::full([256, 256], 0.5, device), Tensor::full([256, 256], 0.25, device));
    println!("{}", a.matmul(&b).select_index(0, 0).select_index(0, 0).item::<f32>()?);
    Ok(())
}

fn append(path: &Path, measurement: &Measurement) -> anyhow::Result<()> {
    use std::io::Write;
    let line = serde_json::to_string(measurement)? + "\n";
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path);
    let written = file.as_mut().map_err(|error| std::io::Error::new(error.kind(), error.to_string()));
    written.and_then(|file| file.write_all(line.as_bytes())).with_context(|| format!("cannot write {}", path.display()))
}

/// The measurements in a file of JSON lines.
fn read(path: &Path) -> anyhow::Result<Vec<Measurement>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(i, line)| serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), i + 1));
    lines.map(parse).collect()
}

fn compare(now: &[Measurement], before: &[Measurement], json: bool) -> anyhow::Result<()> {
    let (table, slower) = report::comparison(now, before);
    // Standard output is for lines of JSON then.
    if json {
        eprintln!("{table}")
    } else {
        println!("{table}")
    }
    if slower.is_empty() { Ok(()) } else { bail!("slower than before, beyond the noise: {}", slower.join(", ")) }
}
