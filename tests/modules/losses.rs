//! Losses at extremes.

use crate::devices::devices;
use crate::values;
use gradus::nn::*;
use gradus::{ErrorKind, Result, Tensor, grad};

#[test]
fn losses_are_finite_at_extremes_and_refuse_to_broadcast() -> Result<()> {
    type Loss = fn(&Tensor, &Tensor) -> Tensor;
    // Not the functions themselves: through a pointer, they do not see where they are called.
    #[allow(clippy::redundant_closure)]
    let losses: [(&str, Loss); 12] = [
        ("mse", |x, t| mse_loss(x, t)),
        ("l1", |x, t| l1_loss(x, t)),
        ("huber", |x, t| huber_loss(x, t, 1.0)),
        ("smooth_l1", |x, t| smooth_l1_loss(x, t, 1.0)),
        ("bce_with_logits", |x, t| bce_with_logits(x, t)),
        ("binary cross-entropy", |x, t| BinaryCrossEntropy::new().loss(x, t)),
        ("focal", |x, t| FocalLoss::new().gamma(0.5).loss(x, t)),
        ("hinge", |x, t| hinge_loss(x, t)),
        ("squared_hinge", |x, t| squared_hinge_loss(x, t)),
        ("soft_margin", |x, t| soft_margin_loss(x, t)),
        ("kl", |x, t| KlDivergence::new().loss(x, t)),
        ("bce", |x, t| bce_loss(&x.sigmoid(), t)),
    ];
    for device in devices() {
        for (name, loss) in losses {
            let x = Tensor::new([[-1e9, 1e9, 0.0, 300.0, -300.0, 1e-20]], &device).tracked();
            for target in [0.0, 1.0] {
                let target = Tensor::full([1, 6], target, &device);
                let y = loss(&x, &target);
                let gradient = values(&grad(&y, [&x])?[0]);
                let is_finite = y.item::<f32>()?.is_finite() && gradient.iter().all(|g| g.is_finite());
                assert!(is_finite, "{name} on {device}: {y}, {gradient:?}");
            }
            for target in [Tensor::zeros([6], &device), Tensor::zeros([1, 1], &device), Tensor::zeros([6, 1], &device)]
            {
                let error = loss(&x, &target).eval().unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Shape { .. }), "{name}: {error}");
                assert!(error.location().is_some_and(|at| at.file().ends_with("losses.rs")), "{name}: {error}");
            }
        }
        // What is impossible and predicted to be so costs nothing.
        let log_p = Tensor::new([f32::NEG_INFINITY, 0.0], &device).tracked();
        let p = Tensor::new([0.0, 1.0], &device);
        let loss = KlDivergence::new().loss(&log_p, &p);
        assert_eq!((loss.item::<f32>()?, values(&grad(&loss, [&log_p])?[0])), (0.0, vec![0.0, -0.5]), "{device}");
        let logits = Tensor::new([[f32::NEG_INFINITY, 0.0]], &device);
        let loss = CrossEntropy::new().loss(&logits, &p.unsqueeze(0));
        assert_eq!(loss.item::<f32>()?, 0.0, "{device}");
    }
    Ok(())
}
