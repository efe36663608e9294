//! Structured pruning: smaller matrices, not zeros.

use gradus_nn::Module;
use gradus_tensor::{DType, Device, Error, ErrorKind, Result, Tensor};
use std::collections::{BTreeMap, HashMap};

/// Takes whole units (outputs of linear layers, channels of convolutions) out of a model: those whose weights have the smallest
/// Euclidean norm (Li et al. 2017). What comes out are smaller tensors for a model that is built with them, which is as much
/// faster as it is smaller.
///
/// A *cut* names the layer whose outputs are thinned out, and the layers that they feed. It is sound for
///
/// - linear layers `[out, in]` and convolutions `[out, in, kernel…]` **without groups**, whose outputs feed such layers alone:
///   through what acts on each element or each channel (activations, dropout, pooling), or through a flattening of channels, behind
///   which a linear layer has several inputs per channel, one channel after the other;
/// - norms between them that hold one number for each channel (batch norm, and layer norm of linear outputs), which are named too.
///
/// It is not for transposed convolutions, recurrent layers and attention, nor for outputs that are added to others (residual
/// connections) unless all layers that feed the sum, and all that read it, lose the same units. What the shapes show to be wrong
/// is an error; what they do not show is yours to know.
///
/// ```
/// use gradus_nn::{Init, Layer, Linear, Relu, Sequential};
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::StructuredPruning;
///
/// let init = Init::new(0, &Device::cpu());
/// let model = Sequential::new().then(Linear::new(8, 32, &init)).then(Relu).then(Linear::new(32, 4, &init));
/// let pruned = StructuredPruning::new(0.75).cut("0", ["2"]).prune(&model)?;
/// let layer = |name: &str| Linear::from_tensors(pruned.tensor(&format!("{name}.weight")), Some(pruned.tensor(&format!("{name}.bias"))));
/// let smaller = Sequential::new().then(layer("0")).then(Relu).then(layer("2"));
/// assert_eq!(pruned.tensor("2.weight").shape()[..], [4, 8]);
/// assert_eq!(smaller.forward(&Tensor::ones([1, 8], &Device::cpu())).shape()[..], [1, 4]);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StructuredPruning {
    share: f64,
    cuts: Vec<Cut>,
}

#[derive(Clone, Debug)]
struct Cut {
    producer: String,
    norms: Vec<String>,
    consumers: Vec<String>,
}

/// The tensors of a pruned model, and which units were kept.
#[derive(Clone, Debug)]
pub struct Pruned {
    tensors: BTreeMap<String, Tensor>,
    kept: Vec<(String, Vec<usize>)>,
}

impl StructuredPruning {
    /// Takes out this share of each cut's units, rounded down, and never all.
    pub fn new(share: f64) -> StructuredPruning {
        StructuredPruning { share, cuts: Vec::new() }
    }

    /// A layer that is to lose outputs, and the layers that read them, by the paths of the layers.
    pub fn cut<'a>(self, producer: &str, consumers: impl IntoIterator<Item = &'a str>) -> StructuredPruning {
        self.cut_through(producer, [], consumers)
    }

    /// As [`cut`](StructuredPruning::cut), with norms between.
    pub fn cut_through<'a, 'b>(
        mut self,
        producer: &str,
        norms: impl IntoIterator<Item = &'a str>,
        consumers: impl IntoIterator<Item = &'b str>,
    ) -> StructuredPruning {
        let norms = norms.into_iter().map(String::from).collect();
        let consumers = consumers.into_iter().map(String::from).collect();
        self.cuts.push(Cut { producer: producer.into(), norms, consumers });
        self
    }

    /// The tensors (parameters and buffers) of the smaller model; the model stays as it is. Units are chosen by the weights of the
    /// whole model, so that the order of cuts does not matter.
    ///
    /// # Errors
    /// If the share is not in 0 to 1, a layer is not there or is cut twice, or shapes do not fit the cut.
    #[track_caller]
    pub fn prune(&self, model: &(impl Module + ?Sized)) -> Result<Pruned> {
        if !(0.0..=1.0).contains(&self.share) {
            return Err(misfit("share", "a share from 0 to 1", self.share.to_string()));
        }
        let parameters = model.parameters().into_iter().map(|(path, parameter)| (path, parameter.tensor().detach()));
        let mut tensors: BTreeMap<String, Tensor> = parameters.collect();
        tensors.extend(model.buffers().into_iter().map(|(path, buffer)| (path, buffer.tensor())));
        let whole: HashMap<String, Tensor> = tensors.clone().into_iter().collect();
        let mut kept: Vec<(String, Vec<usize>)> = Vec::new();
        for cut in &self.cuts {
            if kept.iter().any(|(producer, _)| *producer == cut.producer) {
                return Err(misfit("cut", "each layer once", cut.producer.clone()));
            }
            let units = self.cut_out(cut, &whole, &mut tensors)?;
            kept.push((cut.producer.clone(), units));
        }
        gradus_tensor::eval(tensors.values())?;
        Ok(Pruned { tensors, kept })
    }

    /// Makes the tensors of one cut smaller; tells the units that are kept.
    fn cut_out(
        &self,
        cut: &Cut,
        whole: &HashMap<String, Tensor>,
        tensors: &mut BTreeMap<String, Tensor>,
    ) -> Result<Vec<usize>> {
        let weight_of = |layer: &str| {
            let path = format!("{layer}.weight");
            match whole.get(&path) {
                Some(weight) if weight.rank() >= 2 => Ok((path, weight.clone())),
                Some(weight) => {
                    Err(misfit("cut", "a weight of two axes at least", format!("{path} of {}", weight.shape())))
                }
                None => Err(misfit("cut", "a layer with a weight", format!("no {path}"))),
            }
        };
        let (path, weight) = weight_of(&cut.producer)?;
        let units = weight.shape()[0];
        let sizes = weight.reshape([units, weight.numel() / units.max(1)]).widened().square().sum(1);
        let sizes = sizes.to_device(&Device::cpu()).to_dtype(DType::F64).to_vec::<f64>()?;
        let kept = largest(&sizes, self.share);
        let mut select = |path: String, axis: isize, places: &[usize]| {
            if let Some(tensor) = tensors.get_mut(&path) {
                let index: Vec<i32> = places.iter().map(|&place| place as i32).collect();
                let index = Tensor::from_vec(index, [places.len()], tensor.device());
                *tensor = tensor.index_select(axis, &index);
            }
        };
        select(path, 0, &kept);
        select(format!("{}.bias", cut.producer), 0, &kept);
        for norm in &cut.norms {
            let prefix = format!("{norm}.");
            let own = whole.iter().filter(|(path, _)| path.starts_with(&prefix));
            let of_units = |tensor: &Tensor| tensor.shape()[..] == [units];
            // A count of batches, say, belongs to no channel.
            let (fitting, others): (Vec<_>, Vec<_>) = own.partition(|(_, tensor)| of_units(tensor));
            if fitting.is_empty() || others.iter().any(|(_, tensor)| tensor.numel() != 1) {
                return Err(misfit("cut", "norms with one number for each unit", format!("{norm} for {units} units")));
            }
            fitting.into_iter().for_each(|(path, _)| select(path.clone(), 0, &kept));
        }
        for consumer in &cut.consumers {
            let (path, weight) = weight_of(consumer)?;
            let inputs = weight.shape()[1];
            let each = inputs.checked_div(units).unwrap_or(0);
            let fits = each > 0 && each * units == inputs && (each == 1 || weight.rank() == 2);
            if !fits {
                let found = format!("{path} of {} behind {units} units", weight.shape());
                return Err(misfit("cut", "as many inputs as units, or for a linear layer a multiple", found));
            }
            let places: Vec<usize> = kept.iter().flat_map(|&unit| unit * each..(unit + 1) * each).collect();
            select(path, 1, &places);
        }
        Ok(kept)
    }
}

impl Pruned {
    /// A tensor by its path; one that carries an error if there is none.
    #[track_caller]
    pub fn tensor(&self, path: &str) -> Tensor {
        let missing = || Err(misfit("path", "a tensor of the model", path.into()));
        self.tensors.get(path).cloned().unwrap_or_else(|| Tensor::build(&Device::cpu(), missing))
    }

    /// All tensors by path, in the order of their paths.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(path, tensor)| (path.as_str(), tensor))
    }

    /// Which units each cut kept, by the path of the layer that makes them.
    pub fn kept(&self) -> &[(String, Vec<usize>)] {
        &self.kept
    }
}

#[track_caller]
fn misfit(argument: &'static str, expected: &'static str, found: String) -> Error {
    Error::new("prune", ErrorKind::Argument { argument, expected, found })
}

/// The places of what stays when a share of the smallest goes, in order; of equal ones the first go.
fn largest(sizes: &[f64], share: f64) -> Vec<usize> {
    let gone = ((share * sizes.len() as f64) as usize).min(sizes.len().saturating_sub(1));
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|&a, &b| sizes[a].total_cmp(&sizes[b]));
    let mut kept = order.split_off(gone);
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_nn::{BatchNorm, Conv2d, Init, Layer, Linear, Relu, Sequential};
    use gradus_tensor::{Conv, Key};

    /// The weight with some units zero, so that taking them out changes nothing.
    fn without(weight: &Tensor, units: &[usize]) -> Tensor {
        let rows: Vec<f32> = (0..weight.shape()[0]).map(|unit| f32::from(u8::from(!units.contains(&unit)))).collect();
        let mask = Tensor::from_vec(rows, [weight.shape()[0]], weight.device());
        let ones = vec![1; weight.rank() - 1];
        weight * mask.reshape([&[weight.shape()[0]], &ones[..]].concat())
    }

    struct Net {
        parts: Vec<(&'static str, Conv2d)>,
        head: Linear,
    }

    impl Module for Net {
        fn visit(&self, walk: &mut gradus_nn::Walk<'_>) {
            self.parts.iter().for_each(|(name, part)| walk.field(name, part));
            walk.field("head", &self.head);
        }
    }

    impl Net {
        fn forward(&self, x: &Tensor) -> Tensor {
            let x = self.parts.iter().fold(x.clone(), |x, (_, part)| Relu.forward(&part.forward(&x)));
            self.head.forward(&x.flatten_range(1, -1))
        }
    }

    #[test]
    fn taking_out_units_that_are_zero_changes_nothing() -> Result<()> {
        let init = Init::new(3, &Device::cpu());
        let conv = |inputs, outputs| Conv2d::new(inputs, outputs, 3, &init).with(Conv::new().padding(1));
        let net = Net { parts: vec![("a", conv(2, 6)), ("b", conv(6, 4))], head: Linear::new(4 * 16, 5, &init) };
        let gone: [(&Conv2d, &[usize]); 2] = [(&net.parts[0].1, &[1, 4, 5]), (&net.parts[1].1, &[0, 2])];
        for (layer, units) in gone {
            layer.weight.set(without(&layer.weight.tensor(), units))?;
            let bias = layer.bias.as_ref().expect("there is one");
            bias.set(without(&bias.tensor(), units))?;
        }
        let pruned = StructuredPruning::new(0.5).cut("a", ["b"]).cut("b", ["head"]).prune(&net)?;
        assert_eq!(pruned.kept(), [("a".to_string(), vec![0, 2, 3]), ("b".to_string(), vec![1, 3])]);
        assert_eq!(pruned.tensor("b.weight").shape()[..], [2, 3, 3, 3]);
        assert_eq!(pruned.tensor("head.weight").shape()[..], [5, 32]);
        let of = |name: &str| (pruned.tensor(&format!("{name}.weight")), Some(pruned.tensor(&format!("{name}.bias"))));
        let part = |name: &'static str| {
            let (weight, bias) = of(name);
            (name, Conv2d::from_tensors(weight, bias, Conv::new().padding(1)))
        };
        let (weight, bias) = of("head");
        let smaller = Net { parts: vec![part("a"), part("b")], head: Linear::from_tensors(weight, bias) };
        let x = Tensor::randn([3, 2, 4, 4], Key::new(1), &Device::cpu());
        let (before, after) = (net.forward(&x).to_vec::<f32>()?, smaller.forward(&x).to_vec::<f32>()?);
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5), "{before:?}\n{after:?}");
        Ok(())
    }

    #[test]
    fn batch_norms_between_lose_the_same_units() -> Result<()> {
        let init = Init::new(3, &Device::cpu());
        let net = |units: usize| {
            let (conv, norm) = (Conv2d::new(2, units, 3, &init).without_bias(), BatchNorm::new(units, &init));
            Sequential::new().then(conv).then(norm).then(Relu).then(Conv2d::new(units, 4, 3, &init))
        };
        let whole = net(6);
        let x = |seed: u64| Tensor::randn([3, 2, 8, 8], Key::new(seed), &Device::cpu());
        // Statistics of their own for each channel.
        drop(whole.forward(&(x(1) * 2.0 + 1.0)));
        for (path, parameter) in whole.parameters().into_iter().take(3) {
            let random = Tensor::randn(parameter.shape(), Key::new(path.len() as u64), &Device::cpu());
            parameter.set(without(&random, &[0, 2, 5]))?;
        }
        let pruned = StructuredPruning::new(0.5).cut_through("0", ["1"], ["3"]).prune(&whole)?;
        assert_eq!(pruned.kept(), [("0".to_string(), vec![1, 3, 4])]);
        let smaller = net(3);
        let tensors = pruned.tensors().map(|(path, tensor)| (path.to_string(), tensor.clone())).collect();
        smaller.load_state_dict(&tensors).expect("the tensors are those of three units");
        [&whole, &smaller].into_iter().for_each(Module::eval);
        let [before, after] = [&whole, &smaller].map(|net| net.forward(&x(2)).to_vec::<f32>());
        let (before, after) = (before?, after?);
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5), "{before:?}\n{after:?}");
        Ok(())
    }

    #[test]
    fn cuts_that_do_not_fit_are_errors() {
        let init = Init::new(3, &Device::cpu());
        let model = vec![Linear::new(3, 4, &init), Linear::new(4, 2, &init), Linear::new(6, 2, &init)];
        let half = || StructuredPruning::new(0.5);
        let cases = [
            (half().cut("0", ["2"]), "2.weight of [2, 6] behind 4 units"),
            (half().cut("9", ["2"]), "no 9.weight"),
            (half().cut("0", ["9"]), "no 9.weight"),
            (half().cut("0", ["1"]).cut("0", ["1"]), "each layer once"),
            (half().cut_through("0", ["1"], ["1"]), "one number for each unit"),
            (StructuredPruning::new(1.5).cut("0", ["1"]), "a share from 0 to 1"),
        ];
        for (pruning, message) in cases {
            let error = pruning.prune(&model).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let pruned = StructuredPruning::new(1.0).cut("0", ["1"]).prune(&model).unwrap();
        assert_eq!(pruned.tensor("0.weight").shape()[..], [1, 3], "one unit stays");
        assert!(pruned.tensor("x").error().is_some());
        assert_eq!(largest(&[3.0, 1.0, 1.0, 2.0], 0.25), [0, 2, 3]);
        assert!(largest(&[], 0.5).is_empty());
    }
}
