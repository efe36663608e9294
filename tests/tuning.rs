//! Tunings: every value that `gradus tune` tries computes the same, and a user's table is found, trusted in nothing, and used.

#[path = "support/devices.rs"]
mod devices;

use devices::gpu_device;
use gradus::gpu::device::{Adapter, Options};
use gradus::gpu::tuning::{Choice, Table, VERSION};
use gradus::gpu::{Gpu, Tuning};
use gradus::prelude::*;
use gradus::{Grad, Result};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// The adapter that tests run on.
fn adapter() -> Option<Adapter> {
    let name = gpu_device()?.name().to_string();
    Adapter::all().into_iter().find(|adapter| adapter.id() == name)
}

fn table(adapter: &Adapter, fields: &[(&str, u64)]) -> Table {
    let choice = |&(name, chosen): &(&str, u64)| (name.to_string(), Choice { default: 64, chosen, gain: 1.1 });
    Table::of(adapter.description(), fields.iter().map(choice).collect())
}

/// Something of each family, small, but long enough to be cut where a tuning says so.
fn of_family(family: &str, device: &Device) -> Result<Vec<Tensor>> {
    let random = |seed: u64, shape: &[usize]| Tensor::rand(shape, Key::new(seed), device) - 0.5;
    match family {
        "map" => Ok(vec![(random(1, &[30, 36]) * random(2, &[36])).gelu(), random(3, &[1001]).exp()]),
        "rows" => {
            let x = random(4, &[6, 600]);
            let columns = random(5, &[700, 24]);
            let long = random(20, &[20, 5000]).sum(1);
            Ok(vec![x.softmax(1), columns.sum(0), columns.softmax(0), random(6, &[1 << 14]).sum(..), x.sum(1), long])
        }
        "product" => {
            let long = random(7, &[9, 3000]).matmul(&random(8, &[3000, 40]));
            Ok(vec![long, (random(9, &[70, 33]).matmul(&random(10, &[33, 132])) + 1.0).relu()])
        }
        "attention" => {
            let [q, k, v, cotangent] = [11, 12, 13, 14].map(|seed| random(seed, &[1, 2, 70, 20]));
            let output = q.attention(&k, &v, &Attention::new().causal());
            let mut all = Grad::of(&output).cotangent(&cotangent).wrt([&q, &k, &v])?;
            all.push(output);
            Ok(all)
        }
        "order" => {
            let (long, rows) = (random(15, &[1, 5000]), random(16, &[3, 300]));
            Ok(vec![long.cumsum(1), rows.cumsum(0), long.argsort(1, false), rows.argsort(1, true)])
        }
        "scatter" => {
            let (words, tokens) = (random(17, &[200, 12]), random(18, &[120]));
            let tokens = ((tokens + 0.5) * 199.0).to_dtype(DType::I32);
            let rows = words.index_select(0, &tokens);
            Grad::of(&rows).cotangent(&random(19, &[120, 12])).wrt([&words])
        }
        family => panic!("a family without a test: {family}"),
    }
}

fn values(family: &str, device: &Device) -> Vec<Vec<f32>> {
    let results = of_family(family, device).unwrap();
    eval(&results).unwrap();
    results.iter().map(|result| result.to_dtype(DType::F32).to_vec().unwrap()).collect()
}

#[test]
fn every_value_that_is_tried_computes_the_same() {
    let Some(adapter) = adapter() else { return };
    let wgpu = gradus::gpu::device::Device::open(&adapter, &Options::default()).unwrap();
    let mut expected = BTreeMap::new();
    let mut tried = 0;
    for base in [Tuning::of(&wgpu), if wgpu.is_software() { Tuning::GPU } else { Tuning::SOFTWARE }] {
        for field in Tuning::FIELDS.iter().filter(|field| field.applies_to(&base)) {
            for &value in field.candidates.iter().filter(|value| **value != field.get(&base)) {
                let mut tuning = base.clone();
                field.set(&mut tuning, value).unwrap();
                let device = Device::from_backend("tuned", Box::new(Gpu::new(wgpu.clone()).with_tuning(tuning)));
                for &family in field.families {
                    let expected = expected.entry(family).or_insert_with(|| values(family, &Device::cpu()));
                    for (i, (got, expected)) in values(family, &device).iter().zip(expected).enumerate() {
                        assert_eq!(got.len(), expected.len());
                        let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * largest;
                        let name = format!("{} = {value}, {family} {i}", field.name);
                        assert!(got.iter().zip(&*expected).all(close), "{name}: {got:?}\nis not {expected:?}");
                    }
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 60, "{tried}");
}

/// Each product of random numbers, as a device finds it.
fn products(device: &Device, groups: &[[usize; 4]]) -> Vec<Vec<f32>> {
    let of_group = |&[batch, rows, columns, inner]: &[usize; 4]| {
        let a = Tensor::rand([batch, rows, inner], Key::new(1), device) - 0.5;
        let b = Tensor::rand([batch, columns, inner], Key::new(2), device) - 0.5;
        [a.matmul(&b.transpose(1, 2)), a.transpose(1, 2).matmul(&a)]
    };
    let all: Vec<Tensor> = groups.iter().flat_map(of_group).collect();
    eval(&all).unwrap();
    all.iter().map(|product| product.to_vec().unwrap()).collect()
}

/// Tiles of 64 columns, which only products take that are too large for a test, with padding on all sides.
#[test]
fn the_largest_tiles_of_subgroups_compute_the_same() {
    let Some(adapter) = adapter() else { return };
    let tuning = Tuning { large_product: 1, very_large_product: 1, ..Tuning::SOFTWARE };
    let texts = Arc::new(Mutex::new(Vec::new()));
    let seen = texts.clone();
    let gpu = Gpu::open(&adapter, &Options::default()).unwrap().with_tuning(tuning);
    let has_teams = gpu.device().limits().subgroup_size == Some((8, 8));
    let gpu = gpu.observed(Box::new(move |_, text| seen.lock().unwrap().push(text.to_string())));
    let device = Device::from_backend("tuned", Box::new(gpu));
    let groups = [[1, 64, 64, 64], [2, 70, 61, 33], [1, 200, 188, 600], [3, 57, 250, 9], [1, 130, 63, 1]];
    for (i, (got, expected)) in products(&device, &groups).iter().zip(products(&Device::cpu(), &groups)).enumerate() {
        assert_eq!(got.len(), expected.len());
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 2e-5;
        assert!(got.iter().zip(&expected).all(close), "product {i}: {got:?}\nis not {expected:?}");
    }
    let wide = texts.lock().unwrap().iter().filter(|text| text.contains("const COLUMN_GROUPS = 2u;")).count();
    assert!(wide > 2 || !has_teams, "{wide} kernels");
}

#[test]
fn a_field_changes_the_kernels() {
    let Some(adapter) = adapter() else { return };
    let kernels = |workgroup: u64| {
        let mut tuning = Tuning::GPU;
        Tuning::field("workgroup").unwrap().set(&mut tuning, workgroup).unwrap();
        let texts = Arc::new(Mutex::new(Vec::new()));
        let seen = texts.clone();
        let gpu = Gpu::open(&adapter, &Options::default()).unwrap().with_tuning(tuning);
        let gpu = gpu.observed(Box::new(move |_, text| seen.lock().unwrap().push(text.to_string())));
        let device = Device::from_backend("tuned", Box::new(gpu));
        (Tensor::rand([64], Key::new(1), &device).exp()).eval().unwrap();
        texts.lock().unwrap().join("\n")
    };
    assert!(kernels(32).contains("const WORKGROUP = 32u;") && kernels(256).contains("const WORKGROUP = 256u;"));
}

#[test]
fn tables_survive_being_written_and_read() {
    let Some(adapter) = adapter() else { return };
    let table = table(&adapter, &[("busy", 1 << 12), ("teams", 0)]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/folder/table.json");
    gradus::gpu::tuning::write(&table, &path).unwrap();
    gradus::gpu::tuning::write(&table, &path).unwrap();
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    let read = Table::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(read, table);
    read.check(adapter.description()).unwrap();
    assert_eq!(read.tuning(&Tuning::GPU).unwrap(), Tuning { busy: 1 << 12, teams: false, ..Tuning::GPU });
    let elsewhere = Table { driver: "another".into(), ..table };
    assert!(elsewhere.check(adapter.description()).unwrap_err().to_string().contains("another"));
}

/// The text of a table with one field.
fn text(version: u32, field: &str, chosen: &str) -> String {
    format!(
        r#"{{"version": {version}, "gradus": "{}", "adapter": "a", "backend": "b", "driver": "c", "date": "d",
            "fields": {{"{field}": {{"default": 1, "chosen": {chosen}, "gain": 1.5}}}}}}"#,
        env!("CARGO_PKG_VERSION")
    )
}

#[test]
fn what_is_no_table_says_why() {
    Table::parse(&text(VERSION, "busy", "1024")).unwrap();
    for (text, reason) in [
        (text(VERSION + 1, "busy", "1024"), "version"),
        (text(VERSION, "busy", "1000"), "power of two"),
        (text(VERSION, "busy", "0"), "power of two"),
        (text(VERSION, "teams", "2"), "0 or 1"),
        (text(VERSION, "cooperates", "1"), "no field"),
        (text(VERSION, "busy", "-1"), "no table"),
        (text(VERSION, "busy", "1e400"), "no table"),
        ("[".repeat(1 << 16), "no table"),
        (String::new(), "no table"),
    ] {
        let error = Table::parse(&text).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_an_illegal_tuning(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), chosen in any::<u64>(), field in 0..Tuning::FIELDS.len()) {
        let name = Tuning::FIELDS[field].name;
        // A table, with anything as its number, and bytes that stand anywhere in it.
        let whole = text(VERSION, name, &chosen.to_string());
        let mut torn = whole.clone().into_bytes();
        let at = at.index(torn.len());
        torn.splice(at.., bytes);
        for text in [whole, String::from_utf8_lossy(&torn).into_owned()] {
            if let Ok(table) = Table::parse(&text) {
                let tuning = table.tuning(&Tuning::SOFTWARE).unwrap();
                prop_assert!(tuning.workgroup.is_power_of_two() && (32..=256).contains(&tuning.workgroup));
                prop_assert!(tuning.segment <= 32768 && 4 * tuning.product_segment <= 32768 && tuning.busy > 0);
            }
        }
    }
}

/// Runs the program with a cache folder of its own.
fn gradus(cache: &Path, tuning: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradus"))
        .args(arguments)
        .env("XDG_CACHE_HOME", cache)
        .env("HOME", cache)
        .env("LOCALAPPDATA", cache)
        .env("GRADUS_TUNING", tuning)
        .env("GRADUS_PROGRESS", "off")
        .env("GRADUS_DEBUG", "wgsl")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_program_keeps_what_it_finds() {
    let Some(adapter) = adapter() else { return };
    let cache = tempfile::tempdir().unwrap();
    let (name, cold) = (adapter.id(), ["bench", "--workload", "cold", "--device", adapter.id()]);
    let dry = said(&gradus(cache.path(), "", &["tune", "--device", name, "--seconds", "0", "--dry-run"]));
    // (The driver may have a cache there too.)
    assert!(dry.contains("nothing is written") && !cache.path().join("gradus").exists(), "{dry}");

    let json = gradus(cache.path(), "", &["tune", "--device", name, "--seconds", "1", "--json"]);
    said(&json);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let file = Path::new(json["file"].as_str().unwrap());
    assert!(file.starts_with(cache.path()), "{json}");
    Table::parse(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((&json["adapter"], &json["left_out"]), (&adapter.name().into(), &serde_json::json!([])), "{json}");

    // Another process makes its kernels by what stands there, wherever that came from.
    gradus::gpu::tuning::write(&table(&adapter, &[("workgroup", 256)]), file).unwrap();
    let with_table = said(&gradus(cache.path(), "", &cold));
    let named = said(&gradus(cache.path(), file.to_str().unwrap(), &cold));
    let without = said(&gradus(cache.path(), "off", &cold));
    let tuned = "const WORKGROUP = 256u;";
    assert!(with_table.contains(tuned) && named.contains(tuned) && !without.contains(tuned), "{with_table}");

    // What is of no use is told of, in a line, and nothing else happens.
    for content in ["{", &table(&adapter, &[("busy", 3)]).to_json(), &"x".repeat(1 << 20)] {
        std::fs::write(file, content).unwrap();
        let warned = said(&gradus(cache.path(), "", &cold));
        let line = warned.lines().find(|line| line.contains("is not used")).unwrap_or_default();
        assert!(line.contains(file.to_str().unwrap()) && line.contains("gradus tune"), "{warned}");
        assert!(!warned.contains(tuned));
    }
    assert!(said(&gradus(cache.path(), "/no/such/table", &cold)).contains("is not used"));

    assert!(said(&gradus(cache.path(), "", &["tune", "--device", name, "--reset"])).contains("removed"));
    assert!(!file.exists() && !said(&gradus(cache.path(), "", &cold)).contains("is not used"));
    assert!(said(&gradus(cache.path(), "", &["tune", "--device", name, "--reset"])).contains("there is no"));
    assert!(said(&gradus(cache.path(), "", &["tune", "--device", "cpu"])).contains("nothing to tune"));
    assert!(!gradus(cache.path(), "", &["tune", "--seconds", "-1"]).status.success());
}
