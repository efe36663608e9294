use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::svg::{Font, LIGHT_GREY, Svg};
use super::{PictureError, save};

const MARGIN: f64 = 16.0;
const GAP: f64 = 14.0;
const CAPTION: f64 = 20.0;

/// About how large an image is drawn; a pixel is a whole number of units wide.
const IMAGE_SIZE: usize = 96;

/// Small grey images in rows, each with a caption under it.
///
/// ```
/// use gradus_train::picture::ImageGrid;
///
/// let mut grid = ImageGrid::new("Mistakes", 2, 2).columns(4);
/// grid.add(&[0.0, 0.25, 0.5, 1.0], "7 → 1 (64 %)")?;
/// assert!(grid.to_svg().contains("7 → 1 (64 %)"));
/// # Ok::<(), gradus_train::picture::PictureError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ImageGrid {
    title: String,
    width: usize,
    height: usize,
    columns: usize,
    black: f32,
    white: f32,
    images: Vec<(Vec<f32>, String)>,
}

impl ImageGrid {
    /// A grid of images of `width` × `height` pixels, at first six in a row; the title may be empty.
    pub fn new(title: impl Into<String>, width: usize, height: usize) -> Self {
        let images = Vec::new();
        Self { title: title.into(), width, height, columns: 6, black: 0.0, white: 1.0, images }
    }

    /// How many images are in a row.
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = columns.max(1);
        self
    }

    /// Which pixel value is drawn black and which white, 0 and 1 at first. `range(16.0, 0.0)` draws what is stored
    /// as light on dark, from 0 to 16, as ink on paper.
    pub fn range(mut self, black: f32, white: f32) -> Self {
        (self.black, self.white) = (black, white);
        self
    }

    /// Adds an image: its pixels row by row. A pixel that is NaN stays pale.
    ///
    /// # Errors
    ///
    /// [`PictureError::PixelCount`] if it has not as many pixels as the grid's images.
    pub fn add(&mut self, pixels: &[f32], caption: impl Into<String>) -> Result<(), PictureError> {
        if self.width.checked_mul(self.height) != Some(pixels.len()) {
            return Err(PictureError::PixelCount {
                index: self.images.len(),
                found: pixels.len(),
                width: self.width,
                height: self.height,
            });
        }
        self.images.push((pixels.to_vec(), caption.into()));
        Ok(())
    }

    /// The picture as SVG text.
    pub fn to_svg(&self) -> String {
        let scale = (IMAGE_SIZE / self.width.max(self.height).max(1)).max(1) as f64;
        let (image_width, image_height) = (scale * self.width as f64, scale * self.height as f64);
        let captions = self.images.iter().map(|(_, caption)| Font::LABEL.width(caption));
        let cell_width = captions.fold(image_width, f64::max).ceil() + GAP;
        let cell_height = image_height + CAPTION + GAP;
        let columns = self.columns.min(self.images.len().max(1));
        let rows = self.images.len().div_ceil(columns);
        let top = MARGIN + if self.title.is_empty() { 0.0 } else { 30.0 };
        let grid_width = cell_width * columns as f64 - GAP;
        let width = grid_width.max(Font::TITLE.width(&self.title)) + 2.0 * MARGIN;
        let height = top + cell_height * rows as f64 - GAP + MARGIN;

        let mut svg = Svg::new(width, height.max(top + MARGIN), &self.title);
        svg.text((width / 2.0, MARGIN + 14.0), &self.title, &Font::TITLE);
        let left = ((width - grid_width) / 2.0).floor();
        for (index, (pixels, caption)) in self.images.iter().enumerate() {
            let middle = left + cell_width * (index % columns) as f64 + (cell_width - GAP) / 2.0;
            let y = top + cell_height * (index / columns) as f64;
            let x = (middle - image_width / 2.0).floor();
            svg.rect((x - 1.0, y - 1.0), (image_width + 2.0, image_height + 2.0), LIGHT_GREY);
            let paths = self.runs_by_grey(pixels);
            let paths = paths.iter().map(|(grey, path)| (format!("#{grey:02x}{grey:02x}{grey:02x}"), path.as_str()));
            svg.pixels((x, y), scale, paths);
            svg.text((middle, y + image_height + 16.0), caption, &Font::LABEL);
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

    /// For each grey level a path of all horizontal runs of it: far shorter than an element per pixel.
    fn runs_by_grey(&self, pixels: &[f32]) -> BTreeMap<u8, String> {
        let mut paths: BTreeMap<u8, String> = BTreeMap::new();
        for (y, row) in pixels.chunks_exact(self.width.max(1)).enumerate() {
            let greys: Vec<_> = row.iter().map(|&pixel| self.grey(pixel)).collect();
            let mut x = 0;
            for run in greys.chunk_by(|a, b| a == b) {
                if let Some(grey) = run[0] {
                    // Writing to a string cannot fail.
                    let _ = write!(paths.entry(grey).or_default(), "M{x} {y}h{0}v1h-{0}z", run.len());
                }
                x += run.len();
            }
        }
        paths
    }

    fn grey(&self, pixel: f32) -> Option<u8> {
        let share = (pixel - self.black) / (self.white - self.black);
        (!share.is_nan()).then(|| (share.clamp(0.0, 1.0) * 255.0).round() as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_image() {
        let grid = ImageGrid::new("", 3, 2).range(16.0, 0.0);
        let paths = grid.runs_by_grey(&[0.0, 0.0, 16.0, f32::NAN, 16.0, -5.0]);
        let expected = [(0, "M2 0h1v1h-1zM1 1h1v1h-1z"), (255, "M0 0h2v1h-2zM2 1h1v1h-1z")];
        assert_eq!(paths, expected.map(|(grey, path)| (grey, path.to_owned())).into());
    }

    #[test]
    fn wrong_pixel_counts_are_errors() {
        let mut grid = ImageGrid::new("", 2, 2);
        grid.add(&[0.0; 4], "").unwrap();
        let error = grid.add(&[0.0; 5], "").unwrap_err();
        assert_eq!(error.to_string(), "image 1 has 5 pixels, expected 2 × 2");
        assert!(ImageGrid::new("", usize::MAX, 2).add(&[], "").is_err());
    }

    #[test]
    fn unusual_grids() {
        assert!(ImageGrid::new("", 8, 8).columns(0).to_svg().ends_with("</svg>\n"));
        let mut grid = ImageGrid::new("", 0, 0);
        grid.add(&[], "nothing").unwrap();
        assert!(grid.to_svg().contains("nothing"));
        let mut constant = ImageGrid::new("", 1, 1).range(1.0, 1.0);
        constant.add(&[1.0], "").unwrap();
        constant.add(&[2.0], "").unwrap();
        assert!(!constant.to_svg().contains("NaN"));
    }
}
