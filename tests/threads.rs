//! Several threads on one device: right values, no deadlock, also where evaluations meet inside of rayon's tasks or while
//! parameters are overwritten.

#[path = "support/devices.rs"]
mod devices;

use devices::{devices, is_cpu};
use gradus::prelude::*;
use gradus::{Cell, ErrorKind, Result, assign, compile};
use rayon::prelude::*;
use std::sync::Barrier;
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

/// Training steps of a model of one's own, on data that all threads share and nobody has computed yet: the bits of the
/// losses and weights.
fn train(data: &[Tensor], seed: u64, steps: usize) -> Result<Vec<u32>> {
    let device = data[0].device();
    let init = Init::new(seed, device);
    let model =
        Sequential::new().then(Linear::new(6, 8, &init)).then(Dropout::new(0.2, &init)).then(Linear::new(8, 1, &init));
    let mut optimiser = Adam::new(1e-2).of(&model);
    let mut values = Vec::new();
    for step in 0..steps {
        let loss = model.forward(&data[step % data.len()]).square().mean(..);
        optimiser.step(&loss)?;
        if step % 3 == 0 {
            values.push(loss.item::<f32>()?);
        }
    }
    for (_, parameter) in model.parameters() {
        values.extend(parameter.tensor().to_vec::<f32>()?);
    }
    Ok(values.into_iter().map(f32::to_bits).collect())
}

/// Lazy tensors of several shapes.
fn lazy_data(device: &Device) -> Vec<Tensor> {
    (0..4).map(|i| Tensor::randn([5 + i, 6], Key::new(i as u64), device).sin() * 2.0).collect()
}

/// Waits for all, then runs every task at once; their results in order.
fn at_once<R: Send>(count: usize, task: impl Fn(usize) -> Result<R> + Sync) -> Result<Vec<R>> {
    let barrier = Barrier::new(count);
    let run = |number| {
        barrier.wait();
        task(number)
    };
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || run(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    })
}

#[test]
fn training_side_by_side_gives_the_bits_of_training_alone() -> Result<()> {
    const THREADS: usize = 6;
    for device in devices() {
        let steps = if is_cpu(&device) { 60 } else { 12 };
        // Data that is there, so that its first use is planned alike alone and side by side.
        let alone = lazy_data(&device);
        eval(&alone)?;
        let expected: Vec<_> = (0..THREADS).map(|t| train(&alone, t as u64, steps)).collect::<Result<_>>()?;
        let shared = lazy_data(&device);
        eval(&shared)?;
        let found = at_once(THREADS, |t| train(&shared, t as u64, steps))?;
        assert!(found == expected, "on {device}");
    }
    Ok(())
}

#[test]
fn lazy_tensors_that_all_want_at_once_are_whole() -> Result<()> {
    for device in devices() {
        for round in 0..if is_cpu(&device) { 50 } else { 8 } {
            let start = Tensor::arange(64, &device).to_dtype(gradus::DType::F32) + round as f32;
            // A diamond, and a chain that every thread wants another link of.
            let links: Vec<Tensor> = (0..6)
                .scan(start, |x, _| {
                    *x = &*x * 0.5 + (&*x - 1.0).abs();
                    Some(x.clone())
                })
                .collect();
            let found = at_once(6, |t| Ok((links[t].to_vec::<f32>()?, (&links[5 - t] * 2.0).to_vec::<f32>()?)))?;
            let link =
                |number: usize, i: usize| (0..=number).fold(i as f32 + round as f32, |x, _| x * 0.5 + (x - 1.0).abs());
            for (t, (own, doubled)) in found.into_iter().enumerate() {
                // Halves of whole numbers, so that nothing is rounded.
                assert_eq!(own, (0..64).map(|i| link(t, i)).collect::<Vec<_>>());
                assert_eq!(doubled, (0..64).map(|i| 2.0 * link(5 - t, i)).collect::<Vec<_>>());
            }
        }
    }
    Ok(())
}

#[test]
fn shared_parameters_are_read_whole_while_one_thread_trains_them() -> Result<()> {
    for device in devices() {
        let rounds = if is_cpu(&device) { 400 } else { 40 };
        // Both are always equal: they are assigned together.
        let [a, b] = [0, 1].map(|_| Cell::parameter(Tensor::zeros([512], &device)));
        let product = compile(|x| Ok(vec![&x[0] * &a.tensor()]));
        let ones = Tensor::ones([512], &device);
        at_once(5, |thread| {
            for round in 0..rounds {
                match thread {
                    0 => {
                        let (x, y) = (a.tensor(), b.tensor());
                        assign([(a.clone(), x + 1.0), (b.clone(), y + 1.0)])?;
                    }
                    // Gradients through a parameter that changes meanwhile: right, or a typed error.
                    1 => {
                        let x = a.tensor();
                        match grad(&x.square().sum(..), [&x]) {
                            Ok(gradients) => {
                                let values = gradients[0].to_vec::<f32>()?;
                                assert!(values.iter().all(|v| *v == values[0] && v % 2.0 == 0.0), "{values:?}");
                            }
                            Err(error) => {
                                assert!(matches!(error.kind(), ErrorKind::ParameterUpdated { .. }), "{error}")
                            }
                        }
                    }
                    2 => {
                        let values = product.call(std::slice::from_ref(&ones))?[0].to_vec::<f32>()?;
                        assert!(values.iter().all(|v| *v == values[0] && v.fract() == 0.0), "{values:?}");
                    }
                    _ => {
                        let (x, y) = (a.tensor() * 3.0, b.tensor().sum(..));
                        let scaled = x.to_vec::<f32>()?;
                        assert!(scaled.iter().all(|v| *v == scaled[0] && v % 3.0 == 0.0), "round {round}: {scaled:?}");
                        assert_eq!(y.item::<f32>()? % 512.0, 0.0, "round {round}");
                    }
                }
            }
            Ok(())
        })?;
        assert_eq!(a.tensor().to_vec::<f32>()?, [rounds as f32; 512]);
        assert_eq!(b.tensor().to_vec::<f32>()?, [rounds as f32; 512]);
    }
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
