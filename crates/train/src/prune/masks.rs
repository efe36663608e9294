//! Unstructured pruning by magnitude.

use crate::optimiser::matched;
use crate::{Optimiser, Select};
use gradus_nn::{Module, Param};
use gradus_tensor::{Cell, DType, Device, Error, ErrorKind, Result, Tensor, assign};

/// Which weights of a model are kept; the others are zero. Pruning by magnitude (Han et al. 2015): the smallest weights go.
///
/// An optimiser that was told of the masks ([`Optimiser::keep_masks`]) leaves pruned weights at zero, so that a model can be
/// fine-tuned, and pruned further.
///
/// ```
/// use gradus_nn::Linear;
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::{Masks, Sgd};
///
/// let model = Linear::from_tensors(Tensor::new([[0.1, -2.0], [3.0, -0.2]], &Device::cpu()), None);
/// let masks = Masks::per_parameter(&model, "*.weight", 0.5)?;
/// masks.apply()?;
/// assert_eq!(model.weight.tensor().to_vec::<f32>()?, [0.0, -2.0, 3.0, 0.0]);
/// let mut optimiser = Sgd::new(0.5).of(&model);
/// optimiser.keep_masks(&masks)?;
/// optimiser.step(&model.weight.tensor().sum(..))?;
/// assert_eq!(model.weight.tensor().to_vec::<f32>()?, [0.0, -2.5, 2.5, 0.0]);
/// assert_eq!(masks.sparsity(), 0.5);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
pub struct Masks {
    masks: Vec<Mask>,
}

struct Mask {
    path: String,
    parameter: Param,
    /// Of bools: whether a weight is kept.
    kept: Cell,
    /// How many weights are not.
    pruned: usize,
}

impl Masks {
    /// Masks without this share of the weights of each selected parameter: the smallest, and of equal ones the first. The number of
    /// pruned weights is the share of all, rounded. Weights that are zero already count among the smallest, so that pruning
    /// again prunes further.
    ///
    /// # Errors
    /// If the share is not in 0 to 1, no path is selected, or weights cannot be read.
    #[track_caller]
    pub fn per_parameter(model: &(impl Module + ?Sized), paths: impl Select, share: f64) -> Result<Masks> {
        let chosen = chosen(model, &paths, share)?;
        Masks::of(chosen.into_iter().map(|(path, parameter, sizes)| {
            let pruned = smallest(&[&sizes], share).remove(0);
            (path, parameter, pruned)
        }))
    }

    /// As [`per_parameter`](Masks::per_parameter), but of all selected parameters together: layers with small weights lose more.
    ///
    /// # Errors
    /// As [`per_parameter`](Masks::per_parameter).
    #[track_caller]
    pub fn global(model: &(impl Module + ?Sized), paths: impl Select, share: f64) -> Result<Masks> {
        let chosen = chosen(model, &paths, share)?;
        let pruned = smallest(&chosen.iter().map(|(_, _, sizes)| &sizes[..]).collect::<Vec<_>>(), share);
        Masks::of(chosen.into_iter().zip(pruned).map(|((path, parameter, _), pruned)| (path, parameter, pruned)))
    }

    fn of(pruned: impl Iterator<Item = (String, Param, Vec<bool>)>) -> Result<Masks> {
        let mask = |(path, parameter, pruned): (String, Param, Vec<bool>)| {
            let count = pruned.iter().filter(|&&pruned| pruned).count();
            let kept: Vec<bool> = pruned.into_iter().map(|pruned| !pruned).collect();
            let kept = Tensor::from_vec(kept, parameter.shape(), parameter.tensor().device());
            kept.eval()?;
            Ok(Mask { path, parameter, kept: Cell::buffer(kept), pruned: count })
        };
        Ok(Masks { masks: pruned.map(mask).collect::<Result<_>>()? })
    }

    /// Sets all pruned weights to zero.
    ///
    /// # Errors
    /// If the run fails; the weights are then as before.
    #[track_caller]
    pub fn apply(&self) -> Result<()> {
        let zeroed = |mask: &Mask| {
            (mask.parameter.cell().clone(), masked(&mask.kept.tensor(), mask.parameter.tensor().detach()))
        };
        assign(self.masks.iter().map(zeroed))
    }

    /// The share of the masked parameters' weights that is pruned.
    pub fn sparsity(&self) -> f64 {
        let all: usize = self.masks.iter().map(|mask| mask.parameter.shape().numel()).sum();
        let pruned: usize = self.masks.iter().map(|mask| mask.pruned).sum();
        pruned as f64 / all.max(1) as f64
    }

    /// The paths of the masked parameters, how many weights each has, and how many of them are pruned.
    pub fn counts(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.masks.iter().map(|mask| (mask.path.as_str(), mask.parameter.shape().numel(), mask.pruned))
    }

    /// The masks by path, bools that are true where a weight is kept: their state, to be saved.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.masks.iter().map(|mask| (mask.path.clone(), mask.kept.tensor())).collect()
    }

    /// Masks of a model from a state.
    ///
    /// # Errors
    /// If a path is not in the model, or a mask has another shape or dtype.
    #[track_caller]
    pub fn from_state(model: &(impl Module + ?Sized), state: &[(String, Tensor)]) -> Result<Masks> {
        let named = |path: &str| state.iter().any(|(name, _)| name == path);
        let parameters = model.parameters().into_iter().filter(|(path, _)| named(path));
        let all = parameters.map(|(path, parameter)| {
            let none = vec![false; parameter.shape().numel()];
            (path, parameter, none)
        });
        let mut masks = Masks::of(all)?;
        let cells: Vec<(String, Cell)> = masks.masks.iter().map(|m| (m.path.clone(), m.kept.clone())).collect();
        assign(matched(&cells, state)?)?;
        for mask in &mut masks.masks {
            mask.pruned = mask.kept.tensor().to_vec::<bool>()?.into_iter().filter(|kept| !kept).count();
        }
        Ok(masks)
    }

    /// The mask of a parameter.
    fn of_parameter(&self, parameter: &Param) -> Option<Tensor> {
        let mask = self.masks.iter().find(|mask| mask.parameter.cell().same(parameter.cell()));
        mask.map(|mask| mask.kept.tensor())
    }
}

/// The tensor with zeros where it is not kept.
pub(crate) fn masked(kept: &Tensor, tensor: Tensor) -> Tensor {
    kept.where_(tensor, 0.0)
}

impl Optimiser {
    /// Leaves the pruned weights at zero in all steps to come, whatever their gradients; masks of parameters that it does not
    /// update have no effect.
    ///
    /// # Errors
    /// If pruned weights cannot be set to zero.
    #[track_caller]
    pub fn keep_masks(&mut self, masks: &Masks) -> Result<()> {
        masks.apply()?;
        let kept = self.parameters().iter().map(|(_, parameter)| masks.of_parameter(parameter)).collect();
        self.set_kept(kept);
        Ok(())
    }
}

/// The selected parameters with their paths and the magnitudes of their weights.
#[track_caller]
fn chosen(model: &(impl Module + ?Sized), paths: &impl Select, share: f64) -> Result<Vec<(String, Param, Vec<f32>)>> {
    if !(0.0..=1.0).contains(&share) {
        let (argument, expected) = ("share", "a share from 0 to 1");
        return Err(Error::new("prune", ErrorKind::Argument { argument, expected, found: share.to_string() }));
    }
    let parameters = model.parameters().into_iter().filter(|(path, _)| paths.selects(path));
    let sized = parameters.map(|(path, parameter)| {
        let sizes = parameter.tensor().detach().abs().to_device(&Device::cpu()).to_dtype(DType::F32).to_vec::<f32>()?;
        Ok((path, parameter, sizes))
    });
    let chosen: Vec<_> = sized.collect::<Result<_>>()?;
    if chosen.is_empty() {
        let (argument, expected) = ("paths", "the path of a parameter");
        return Err(Error::new("prune", ErrorKind::Argument { argument, expected, found: "none that fits".into() }));
    }
    Ok(chosen)
}

/// Which elements of several rows are the smallest of all, as many as the share says. NaN counts as large.
fn smallest(rows: &[&[f32]], share: f64) -> Vec<Vec<bool>> {
    let mut order: Vec<(f32, usize, usize)> = Vec::new();
    for (row, sizes) in rows.iter().enumerate() {
        order.extend(sizes.iter().enumerate().map(|(place, &size)| (size, row, place)));
    }
    let count = (share * order.len() as f64).round() as usize;
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut pruned: Vec<Vec<bool>> = rows.iter().map(|row| vec![false; row.len()]).collect();
    order.iter().take(count).for_each(|&(_, row, place)| pruned[row][place] = true);
    pruned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Adam;
    use gradus_nn::Linear;

    fn model() -> Vec<Linear> {
        let device = Device::cpu();
        let layer = |rows: [[f64; 2]; 2]| {
            Linear::from_tensors(Tensor::new(rows, &device), Some(Tensor::new([0.01, 0.02], &device)))
        };
        vec![layer([[1.0, -2.0], [3.0, 4.0]]), layer([[0.5, -0.25], [f64::NAN, 0.25]])]
    }

    #[test]
    fn the_smallest_go_of_each_or_of_all() -> Result<()> {
        let model = model();
        let counts = |masks: &Masks| masks.counts().map(|(_, _, pruned)| pruned).collect::<Vec<_>>();
        assert_eq!(counts(&Masks::per_parameter(&model, "*.weight", 0.5)?), [2, 2]);
        let global = Masks::global(&model, "*.weight", 0.5)?;
        assert_eq!(counts(&global), [1, 3]);
        assert_eq!(global.sparsity(), 0.5);
        global.apply()?;
        assert_eq!(model[0].weight.tensor().to_vec::<f32>()?, [0.0, -2.0, 3.0, 4.0]);
        assert!(model[1].weight.tensor().to_vec::<f32>()?[2].is_nan());
        // Equal ones: the first goes. None and all.
        assert_eq!(smallest(&[&[1.0, 1.0, 1.0, 1.0]], 0.5), [[true, true, false, false]]);
        assert_eq!(counts(&Masks::global(&model, "**", 0.0)?), [0, 0, 0, 0]);
        assert_eq!(counts(&Masks::global(&model, "**", 1.0)?), [4, 2, 4, 2]);
        for share in [-0.1, 1.1, f64::NAN] {
            assert!(Masks::global(&model, "**", share).is_err());
        }
        assert!(Masks::global(&model, "x", 0.5).is_err());
        Ok(())
    }

    #[test]
    fn pruned_weights_stay_zero_and_pruning_goes_on() -> Result<()> {
        let device = Device::cpu();
        let layer = Linear::from_tensors(Tensor::new([[1.0, -2.0, 3.0, -4.0]], &device), None);
        let masks = Masks::per_parameter(&layer, "weight", 0.25)?;
        let mut optimiser = Adam::new(0.1).decoupled_weight_decay(0.1).of(&layer);
        let step = |optimiser: &mut Optimiser| optimiser.step(&(layer.weight.tensor() - 10.0).square().sum(..));
        // Momentum from before does not bring them back.
        step(&mut optimiser)?;
        optimiser.keep_masks(&masks)?;
        (0..5).try_for_each(|_| step(&mut optimiser))?;
        let weights = layer.weight.tensor().to_vec::<f32>()?;
        assert_eq!(weights.iter().filter(|&&w| w == 0.0).count(), 1);
        let further = Masks::per_parameter(&layer, "weight", 0.5)?;
        let loaded = Masks::from_state(&layer, &further.state())?;
        assert_eq!(loaded.counts().collect::<Vec<_>>(), [("weight", 4, 2)]);
        assert!(!loaded.state()[0].1.to_vec::<bool>()?[0]);
        let wrong = [("weight".to_string(), Tensor::new([[true, false]], &device))];
        assert!(Masks::from_state(&layer, &wrong).is_err());
        assert!(Masks::from_state(&layer, &[("bias".to_string(), wrong[0].1.clone())]).is_err());
        Ok(())
    }
}
