use std::path::Path;

use super::svg::{Anchor, Font, LIGHT_GREY, PALETTE, Svg};
use super::{PictureError, save};

const MARGIN: f64 = 16.0;
const ROW: f64 = 22.0;
const BAR: f64 = 15.0;
const LONGEST: f64 = 360.0;

/// Named quantities of one unit as horizontal bars, each with its number.
///
/// What is not finite, or below 0, has its number and no bar.
///
/// ```no_run
/// use gradus_train::picture::BarChart;
///
/// BarChart::new("Time of an epoch").unit("s").bar("CPU", 2.1).bar("GPU", 0.4).save("pictures/epoch.svg")?;
/// # Ok::<(), gradus_train::picture::PictureError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BarChart {
    title: String,
    unit: String,
    bars: Vec<(String, f64)>,
}

impl BarChart {
    /// A chart without bars yet; the title may be empty.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), unit: String::new(), bars: Vec::new() }
    }

    /// What stands behind the numbers.
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    /// Adds a bar below the others.
    pub fn bar(mut self, name: impl Into<String>, value: f64) -> Self {
        self.bars.push((name.into(), value));
        self
    }

    /// The picture as SVG text.
    pub fn to_svg(&self) -> String {
        let is_long = |value: f64| value.is_finite() && value >= 0.0;
        let largest = self.bars.iter().map(|bar| bar.1).filter(|&value| is_long(value)).fold(0.0, f64::max);
        let names = self.bars.iter().map(|(name, _)| Font::LABEL.width(name)).fold(0.0, f64::max);
        let labels: Vec<String> = self.bars.iter().map(|&(_, value)| self.label(value)).collect();
        let numbers = labels.iter().map(|label| Font::TICK.width(label)).fold(0.0, f64::max);
        let needed = names + 8.0 + LONGEST + 6.0 + numbers;
        let width = needed.max(Font::TITLE.width(&self.title)) + 2.0 * MARGIN;
        let top = MARGIN + if self.title.is_empty() { 0.0 } else { 30.0 };
        let height = top + ROW * self.bars.len() as f64 + MARGIN;

        let mut svg = Svg::new(width, height, &self.title);
        svg.text((width / 2.0, MARGIN + 14.0), &self.title, &Font::TITLE);
        let left = MARGIN + names + 8.0;
        let before = Font { anchor: Anchor::End, ..Font::LABEL };
        let behind = Font { anchor: Anchor::Start, ..Font::TICK };
        for (i, ((name, value), label)) in self.bars.iter().zip(&labels).enumerate() {
            let y = top + ROW * i as f64;
            let share = if is_long(*value) && largest > 0.0 { value / largest } else { 0.0 };
            svg.text((left - 8.0, y + 12.0), name, &before);
            svg.rect((left, y), (LONGEST, BAR), LIGHT_GREY);
            svg.rect((left, y), (LONGEST * share, BAR), PALETTE[0]);
            svg.text((left + LONGEST + 6.0, y + 12.0), label, &behind);
        }
        svg.finish()
    }

    fn label(&self, value: f64) -> String {
        let decimals = if value.abs() < 10.0 { 2 } else { 0 };
        format!("{value:.decimals$} {}", self.unit).trim_end().to_string()
    }

    /// Writes the picture to an SVG file, replacing it whole; a missing folder is created.
    ///
    /// # Errors
    ///
    /// [`PictureError::Write`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        save(path.as_ref(), &self.to_svg())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_to_scale() {
        let svg = BarChart::new("a < b").unit("s").bar("one", 1.0).bar("four", 4.0).bar("none", f64::NAN).to_svg();
        for expected in ["width=\"90\" height=\"15\"", "width=\"360\" height=\"15\"", ">4.00 s<", ">a &lt; b<"] {
            assert!(svg.contains(expected), "{expected} is missing in {svg}");
        }
        assert!(BarChart::new("").to_svg().ends_with("</svg>\n"));
    }
}
