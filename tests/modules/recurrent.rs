//! Recurrent layers along sequences of unequal lengths, and with projections.

use crate::devices::devices;
use crate::{near, normal, values};
use gradus::nn::*;
use gradus::{Device, ErrorKind, Key, Result, Tensor, eval, grad, stack};

/// Numbers by a formula, in the order of the parameters' names.
fn fill(module: &impl Module) {
    let mut parameters = module.parameters();
    parameters.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (k, (_, parameter)) in parameters.into_iter().enumerate() {
        let values = (0..parameter.shape().numel()).map(|i| ((0.7 * i as f64 + k as f64).sin() * 0.6) as f32).collect();
        let tensor = parameter.tensor();
        parameter.set(Tensor::from_vec(values, tensor.shape(), tensor.device())).unwrap();
    }
}

/// Two sequences of three steps and two inputs.
fn sequences(device: &Device) -> Tensor {
    Tensor::from_vec((0..12).map(|i| (0.3 * i as f32).cos()).collect::<Vec<f32>>(), [2, 3, 2], device)
}

/// What PyTorch 2.15 gives for the same weights, packed.
#[test]
fn padded_sequences_give_what_packed_ones_do() {
    for device in devices() {
        let init = Init::new(0, &device);
        let lengths = Tensor::new([1, 3], &device);
        let lstm = Lstm::new(2, 3, &init).layers(2, &init).bidirectional(&init).projected(2, &init);
        fill(&lstm);
        let (y, LstmState { hidden, cell }) = lstm.run_padded(&sequences(&device), &lengths, None);
        eval([&y, &hidden, &cell]).unwrap();
        let expected = [
            -0.132031, 0.067758, -0.052406, -0.035590, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.102277, 0.044455,
            -0.047360, -0.033465, -0.144244, 0.079420, -0.037704, -0.029910, -0.164471, 0.104669, -0.029148, -0.035187,
        ];
        near(&values(&y), &expected, 2e-6);
        let expected = [
            0.050869, 0.013031, -0.256819, -0.180751, -0.135666, 0.152743, -0.432952, -0.005435, -0.132031, 0.067758,
            -0.164471, 0.104669, -0.052406, -0.035590, -0.047360, -0.033465,
        ];
        near(&values(&hidden), &expected, 2e-6);
        let expected = [
            -0.089831, 0.131405, 0.151440, 0.357953, -0.952426, -0.924722, 0.054429, 0.247535, -0.474656, -0.606790,
            -0.983180, -0.323519, -0.261157, -0.147552, 0.044053, -0.088662, -0.546146, 0.188892, -0.055574, 0.118512,
            0.214410, 0.093241, -0.100264, 0.438594,
        ];
        near(&values(&cell), &expected, 2e-6);
        let gru = Gru::new(2, 3, &init).bidirectional(&init);
        fill(&gru);
        let (_, hidden) = gru.run_padded(&sequences(&device), &lengths, None);
        let expected = [
            0.344721, -0.405994, -0.293074, -0.582366, 0.415544, 0.856877, 0.001457, -0.322192, 0.055793, 0.165988,
            0.865333, 0.387362,
        ];
        near(&values(&hidden), &expected, 2e-6);
        let rnn = Rnn::new(2, 3, &init).layers(2, &init).time_first();
        fill(&rnn);
        let (y, hidden) = rnn.run_padded(&sequences(&device).transpose(0, 1), &lengths, None);
        let expected = [
            0.933606, -0.158010, -0.675737, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.792445, 0.118156, -0.457524, 0.238734,
            0.233581, 0.216464, 0.383532, 0.610001, -0.393837,
        ];
        near(&values(&y.transpose(0, 1)), &expected, 2e-6);
        let expected = [
            0.544120, 0.940009, 0.632648, 0.306352, -0.217086, 0.042877, 0.933606, -0.158010, -0.675737, 0.383532,
            0.610001, -0.393837,
        ];
        near(&values(&hidden), &expected, 2e-6);
    }
}

/// Outputs, states and gradients beside those of each sequence by itself; the padding is NaN.
#[test]
fn padded_sequences_are_as_if_alone() -> Result<()> {
    let device = Device::cpu();
    let init = Init::new(7, &device);
    let (lengths, steps) = ([4usize, 1, 6, 2], 6);
    let x = normal([4, steps, 3], &device);
    let is_padding = |row: usize| Tensor::arange(steps, &device).ge(lengths[row]).unsqueeze(1);
    let rows: Vec<Tensor> =
        (0..4).map(|row| is_padding(row).where_(f32::NAN, x.select_index(0, row as isize))).collect();
    let padded = stack(&rows.iter().collect::<Vec<_>>(), 0);
    let of_lengths = Tensor::from_vec(lengths.map(|length| length as i32).to_vec(), [4], &device);
    let gru = Gru::new(3, 5, &init).layers(2, &init).bidirectional(&init);
    let lstm = Lstm::new(3, 5, &init).bidirectional(&init).projected(2, &init).layers(2, &init);
    let start = normal([4, 4, 5], &device);
    let narrow = normal([4, 4, 2], &device);

    type Run<'a> = (&'a dyn Module, Box<dyn Fn(&Tensor, Option<&Tensor>, [&Tensor; 2]) -> Vec<Tensor> + 'a>);
    let runs: [Run; 2] = [
        (&gru, {
            let run = |x: &Tensor, lengths: Option<&Tensor>, [_, start]: [&Tensor; 2]| {
                let (y, hidden) = match lengths {
                    Some(lengths) => gru.run_padded(x, lengths, Some(start)),
                    None => gru.run(x, Some(start)),
                };
                vec![y, hidden]
            };
            Box::new(run)
        }),
        (&lstm, {
            let run = |x: &Tensor, lengths: Option<&Tensor>, [hidden, cell]: [&Tensor; 2]| {
                let start = LstmState { hidden: hidden.clone(), cell: cell.clone() };
                let (y, LstmState { hidden, cell }) = match lengths {
                    Some(lengths) => lstm.run_padded(x, lengths, Some(&start)),
                    None => lstm.run(x, Some(&start)),
                };
                vec![y, hidden, cell]
            };
            Box::new(run)
        }),
    ];
    for (module, run) in &runs {
        let together = run(&padded, Some(&of_lengths), [&narrow, &start]);
        let parameters: Vec<Tensor> = module.parameters().iter().map(|(_, p)| p.tensor()).collect();
        let weighted = |tensors: &[Tensor]| tensors.iter().map(|t| t.sin().sum(..)).reduce(|a, b| a + b).unwrap();
        let mut alone = Vec::new();
        for (row, &length) in lengths.iter().enumerate() {
            let row = row as isize;
            let of_row = |state: &Tensor| state.slice(1, row..row + 1);
            let x = x.slice(0, row..row + 1).slice(1, ..length as isize);
            let own = run(&x, None, [&of_row(&narrow), &of_row(&start)]);
            let y = together[0].slice(0, row..row + 1);
            near(&values(&y.slice(1, ..length as isize)), &values(&own[0]), 1e-6);
            assert!(values(&y.slice(1, length as isize..)).iter().all(|&y| y == 0.0));
            for (together, own) in together[1..].iter().zip(&own[1..]) {
                near(&values(&of_row(together)), &values(own), 1e-6);
            }
            alone.push(weighted(&own));
        }
        let alone = alone.into_iter().reduce(|a, b| a + b).expect("there are rows");
        let (together, alone) = (grad(&weighted(&together), &parameters)?, grad(&alone, &parameters)?);
        for (together, alone) in together.iter().zip(&alone) {
            near(&values(together), &values(alone), 1e-5);
        }
    }
    Ok(())
}

#[test]
fn lengths_are_checked_and_make_no_plans() -> Result<()> {
    for device in crate::devices::own_devices(None) {
        let gru = Gru::new(2, 3, &Init::new(0, &device));
        let x = sequences(&device);
        let run = |lengths: [i32; 2]| gru.run_padded(&x, &Tensor::new(lengths, &device), None);
        for lengths in [[4, 1], [1, -1]] {
            let error = run(lengths).1.eval().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Index { .. }), "{error}");
        }
        let error = gru.run_padded(&x, &Tensor::new([1, 2, 3], &device), None).0.eval().unwrap_err().to_string();
        assert!(error.contains("the lengths has shape [3], expected [2]"), "{error}");
        let (y, hidden) = run([0, 3]);
        assert!(values(&y)[..9].iter().chain(&values(&hidden)[..3]).all(|&value| value == 0.0));
        drop(values(&run([1, 2]).1));
        let plans = device.stats().plans;
        for lengths in [[2, 3], [3, 3], [0, 1]] {
            drop(values(&run(lengths).1));
        }
        assert_eq!(device.stats().plans, plans, "{device}");
    }
    Ok(())
}

#[test]
fn a_projection_is_a_product_with_what_is_hidden() -> Result<()> {
    let device = Device::cpu();
    let init = Init::new(3, &device);
    let lstm = Lstm::new(2, 4, &init).projected(3, &init).without_bias();
    let x = Tensor::randn([5, 1, 2], Key::new(1), &device);
    let (y, state) = lstm.run(&x, None);
    // One step from zeros: c = i g, h = R (o tanh(c)).
    let parameters: Vec<Tensor> = lstm.parameters().iter().map(|(_, p)| p.tensor()).collect();
    let [ih, _, hr] = &parameters[..] else { panic!("{} parameters", parameters.len()) };
    let (x, ih, hr) = (values(&x), values(ih), values(hr));
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let (mut expected, mut cells) = (Vec::new(), Vec::new());
    for row in x.chunks(2) {
        let gate = |gate: usize, unit: usize| {
            let weights = &ih[(gate * 4 + unit) * 2..];
            weights[0] * row[0] + weights[1] * row[1]
        };
        let cell: Vec<f32> = (0..4).map(|u| sigmoid(gate(0, u)) * gate(2, u).tanh()).collect();
        let hidden: Vec<f32> = (0..4).map(|u| sigmoid(gate(3, u)) * cell[u].tanh()).collect();
        expected.extend((0..3).map(|i| (0..4).map(|u| hr[i * 4 + u] * hidden[u]).sum::<f32>()));
        cells.extend(cell);
    }
    near(&values(&y), &expected, 1e-6);
    near(&values(&state.cell), &cells, 1e-6);
    assert_eq!(Lstm::new(2, 4, &init).projected(3, &init).projected(0, &init).parameters().len(), 4);
    Ok(())
}
