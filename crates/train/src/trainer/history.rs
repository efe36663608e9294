//! What was measured in the course of training.

use super::floats;
use crate::picture::{Chart, Panel, PictureError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// The end of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch, from 1.
    pub epoch: u64,
    /// How many steps were taken until its end.
    pub step: u64,
    /// The mean loss of its rows, each as it was in its step; NaN if none was finite and those are left out.
    #[serde(with = "floats::single")]
    pub train_loss: f64,
    /// The mean loss of the validation rows at its end, if there are any.
    #[serde(with = "floats::optional")]
    pub validation_loss: Option<f64>,
    /// The metrics of the validation rows at its end, by name.
    #[serde(with = "floats::named")]
    pub metrics: Vec<(String, f64)>,
    /// The learning rate of its last step.
    pub learning_rate: f64,
    /// How many of its steps were left out, since their gradients were not finite.
    pub skipped: u64,
}

impl EpochRecord {
    /// What is called so: `train_loss`, `validation_loss`, or a metric by its name.
    pub fn value(&self, name: &str) -> Option<f64> {
        match name {
            "train_loss" => Some(self.train_loss),
            "validation_loss" => self.validation_loss,
            _ => self.metrics.iter().find(|(metric, _)| metric == name).map(|(_, value)| *value),
        }
    }
}

impl fmt::Display for EpochRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}  loss {:.4}", self.epoch, self.train_loss)?;
        if let Some(loss) = self.validation_loss {
            write!(f, "  validation loss {loss:.4}")?;
        }
        self.metrics.iter().try_for_each(|(name, value)| write!(f, "  {name} {value:.4}"))?;
        if self.skipped > 0 {
            write!(f, "  {} steps skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// What was measured in the course of training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Step and mean loss since the entry before; one for every time that losses are told of.
    #[serde(with = "floats::by_step")]
    pub losses: Vec<(u64, f64)>,
    /// The epochs that are over.
    pub epochs: Vec<EpochRecord>,
}

impl History {
    /// A picture of the losses and metrics over the steps.
    pub fn chart(&self, title: &str) -> Chart {
        let at_end = |value: &dyn Fn(&EpochRecord) -> Option<f64>| -> Vec<(f64, f64)> {
            self.epochs.iter().filter_map(|epoch| Some((epoch.step as f64, value(epoch)?))).collect()
        };
        let steps = self.losses.iter().map(|&(step, loss)| (step as f64, loss)).collect::<Vec<_>>();
        let mut panel = Panel::new("Loss").labels("step", "loss").line("training", steps);
        let validation = at_end(&|epoch| epoch.validation_loss);
        if !validation.is_empty() {
            panel = panel.line("validation", validation);
        }
        let mut chart = Chart::new(title).panel(panel);
        let names = self.epochs.first().map_or(&[][..], |epoch| &epoch.metrics[..]);
        for (name, _) in names {
            let values = at_end(&|epoch| epoch.value(name));
            chart = chart.panel(Panel::new(name.clone()).labels("step", "").line("validation", values));
        }
        chart
    }

    /// Saves the picture as SVG.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_chart(&self, title: &str, path: impl AsRef<Path>) -> Result<(), PictureError> {
        self.chart(title).save(path)
    }
}
