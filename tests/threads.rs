//! Several threads on one device: right values, no deadlock, also where evaluations meet inside of rayon's tasks or while
//! parameters are overwritten.

#[path = "support/devices.rs"]
mod devices;

use devices::{devices, is_cpu};
use gradus::{Cell, Device, Result, Tensor, assign};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Large enough that kernels are cut into tasks, which waiting threads steal from each other.
const LARGE: usize = 200_000;

#[test]
fn evaluations_inside_of_rayon_tasks_come_to_an_end() -> Result<()> {
    for device in devices() {
        // Not computed yet: many tasks may want it at once.
        let shared = Tensor::arange(LARGE, &device).to_dtype(gradus::DType::F32) * 0.0 + 1.0;
        let sums: Vec<f32> = (0..200)
            .into_par_iter()
            .map(|i| (&shared * i as f32).square().sum(..).item::<f32>())
            .collect::<Result<_>>()?;
        for (i, sum) in sums.into_iter().enumerate() {
            let expected = (i * i * LARGE) as f32;
            // Sums above 2²⁴ are rounded, on a GPU more than once.
            assert!((sum - expected).abs() <= if is_cpu(&device) { 0.0 } else { 1e-5 * expected }, "{sum} on {device}");
        }
    }
    Ok(())
}

#[test]
fn readers_see_whole_values_while_a_parameter_is_updated_in_place() -> Result<()> {
    for device in devices() {
        readers_and_a_writer(&device)?;
    }
    Ok(())
}

fn readers_and_a_writer(device: &Device) -> Result<()> {
    // A GPU sums in f32, exactly up to 2²⁴.
    let updates = if is_cpu(device) { 300 } else { 60 };
    let parameter = Cell::parameter(Tensor::zeros([LARGE], device));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| -> Result<usize> {
                    let (mut reads, mut last) = (0, 0.0);
                    while !done.load(Ordering::Relaxed) || reads == 0 {
                        // The leaf itself is not held: it may be overwritten while the sum waits to be computed.
                        let sum = parameter.tensor().sum(..);
                        let largest = parameter.tensor().max(..);
                        let mean = sum.item::<f32>()? / LARGE as f32;
                        assert_eq!(mean.fract(), 0.0, "a sum over old and new values");
                        assert!(mean >= last && largest.item::<f32>()? >= mean, "time runs backwards");
                        last = mean;
                        reads += 1;
                    }
                    Ok(reads)
                })
            })
            .collect();
        let writer = scope.spawn(|| -> Result<()> {
            for _ in 0..updates {
                assign([(parameter.clone(), parameter.tensor() + 1.0)])?;
            }
            Ok(())
        });
        let written = writer.join().expect("the writer does not panic");
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().expect("no reader panics")? > 0);
        }
        written
    })?;
    assert_eq!(parameter.tensor().to_vec::<f32>()?, vec![updates as f32; LARGE]);
    Ok(())
}

#[test]
fn tensors_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Tensor>();
    check::<Device>();
    check::<Cell>();
    check::<gradus::Error>();
}
