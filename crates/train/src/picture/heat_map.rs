use std::path::Path;

use super::svg::{Anchor, Font, GREY, Svg};
use super::{PictureError, save};
use crate::metrics::ConfusionMatrix;

const MARGIN: f64 = 16.0;
const GAP: f64 = 2.0;

/// The colours of the shares 0 and 1.
const PALE: [f64; 3] = [242.0, 245.0, 248.0];
const DEEP: [f64; 3] = [0.0, 78.0, 138.0];

/// A confusion matrix as coloured cells: a row per label, a column per predicted class, the counts in the cells, each
/// shaded by its share of its row.
///
/// ```no_run
/// use gradus_train::metrics::ConfusionMatrix;
/// use gradus_train::picture::ConfusionHeatMap;
///
/// let matrix = ConfusionMatrix::from_predictions(&[0, 1, 1], &[0, 1, 0], 2)?;
/// ConfusionHeatMap::new("Tumours", &matrix)
///     .class_names(["malignant", "benign"])
///     .save("pictures/confusion.svg")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConfusionHeatMap {
    title: String,
    matrix: ConfusionMatrix,
    names: Vec<String>,
}

impl ConfusionHeatMap {
    /// The picture of a matrix; the title may be empty.
    pub fn new(title: impl Into<String>, matrix: &ConfusionMatrix) -> Self {
        let names = (0..matrix.classes()).map(|class| class.to_string()).collect();
        Self { title: title.into(), matrix: matrix.clone(), names }
    }

    /// Names the classes, which otherwise have numbers; a class without a name keeps its number.
    pub fn class_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        for (place, name) in self.names.iter_mut().zip(names) {
            *place = name.into();
        }
        self
    }

    /// The picture as SVG text.
    pub fn to_svg(&self) -> String {
        let classes = self.matrix.classes();
        let name_width = self.names.iter().map(|name| Font::LABEL.width(name)).fold(0.0, f64::max);
        let count_width = self.matrix.counts().iter().map(|count| Font::LABEL.width(&count.to_string()));
        // Few classes get large cells, in which their names fit.
        let smallest = (280.0 / classes.max(1) as f64).clamp(40.0, 100.0);
        let cell = count_width.fold(smallest, f64::max) + 10.0;
        let (slanted, name_height) = match name_width + 8.0 > cell {
            true => (true, 0.71 * name_width + 14.0),
            false => (false, 20.0),
        };
        let side = cell * classes as f64;
        let names_right = 24.0 + name_width + 10.0;
        let top = MARGIN + if self.title.is_empty() { 0.0 } else { 26.0 } + 24.0 + name_height;
        let overhang = if slanted { 0.71 * name_width - cell / 2.0 } else { 0.0 };
        let needed = names_right + side.max(Font::SUBTITLE.width("predicted")) + overhang.max(0.0);
        let width = needed.max(Font::TITLE.width(&self.title)) + 2.0 * MARGIN;
        let left = (width - needed) / 2.0 + names_right;
        let height = top + side.max(Font::SUBTITLE.width("label")) + MARGIN;

        let mut svg = Svg::new(width, height, &self.title);
        svg.text((width / 2.0, MARGIN + 14.0), &self.title, &Font::TITLE);
        svg.text((left + side / 2.0, top - name_height - 10.0), "predicted", &Font::SUBTITLE);
        let upright = Font { rotation: -90.0, ..Font::SUBTITLE };
        svg.text((left - names_right + 12.0, top + side / 2.0), "label", &upright);

        let name_left = Font { anchor: Anchor::End, ..Font::LABEL };
        let name_slanted = Font { anchor: Anchor::Start, rotation: -45.0, ..Font::LABEL };
        for (class, name) in self.names.iter().enumerate() {
            let middle = class as f64 * cell + (cell - GAP) / 2.0;
            svg.text((left - 8.0, top + middle + 4.0), name, &name_left);
            match slanted {
                true => svg.text((left + middle + 3.0, top - 6.0), name, &name_slanted),
                false => svg.text((left + middle, top - 7.0), name, &Font::LABEL),
            }
        }
        for label in 0..classes {
            let total: u64 = (0..classes).map(|predicted| self.matrix.count(predicted, label)).sum();
            for predicted in 0..classes {
                let count = self.matrix.count(predicted, label);
                let share = count as f64 / total.max(1) as f64;
                let (x, y) = (left + cell * predicted as f64, top + cell * label as f64);
                svg.rect((x, y), (cell - GAP, cell - GAP), &shade(share));
                let colour = if count == 0 { GREY } else { ink_on(share) };
                let middle = (x + (cell - GAP) / 2.0, y + (cell - GAP) / 2.0 + 4.0);
                svg.text(middle, &count.to_string(), &Font { colour, ..Font::LABEL });
            }
        }
        svg.finish()
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

/// From pale to deep. The square root sets a few mistakes off from none at all.
fn shade(share: f64) -> String {
    let [r, g, b] = [0, 1, 2].map(|i| (PALE[i] + (DEEP[i] - PALE[i]) * share.sqrt()).round() as u8);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// The colour of text that is readable on this shade.
fn ink_on(share: f64) -> &'static str {
    if share < 0.535 { "#000000" } else { "#ffffff" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_names() {
        let mut matrix = ConfusionMatrix::new(3);
        (0..1234).for_each(|_| matrix.add(0, 2).unwrap());
        let svg = ConfusionHeatMap::new("t", &matrix).class_names(["cat", "d<g"]).to_svg();
        assert_eq!(svg.matches(">1234</text>").count(), 1);
        assert_eq!(svg.matches(">0</text>").count(), 8);
        assert_eq!(svg.matches(">cat</text>").count(), 2);
        assert_eq!(svg.matches(">d&lt;g</text>").count(), 2);
        assert_eq!(svg.matches(">2</text>").count(), 2);
        assert_eq!(svg.matches(&shade(1.0)).count(), 1);
    }

    #[test]
    fn no_classes() {
        assert!(ConfusionHeatMap::new("", &ConfusionMatrix::new(0)).to_svg().ends_with("</svg>\n"));
    }

    /// Contrast as WCAG defines it; 4.5 is its level AA for text.
    #[test]
    fn counts_are_readable_on_every_shade() {
        let luminance = |hex: &str| {
            let part = |i: usize| {
                let c = f64::from(u8::from_str_radix(&hex[i..i + 2], 16).unwrap()) / 255.0;
                if c <= 0.03928 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
        };
        for percent in 0..=100 {
            let share = f64::from(percent) / 100.0;
            let (a, b) = (luminance(ink_on(share)), luminance(&shade(share)));
            let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
            assert!(contrast >= 4.5, "{share}: {contrast}");
        }
    }
}
