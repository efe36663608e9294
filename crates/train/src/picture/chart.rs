use std::path::Path;

use super::axis::Axis;
use super::svg::{Anchor, Font, GREY, LIGHT_GREY, PALETTE, Svg};
use super::{PictureError, save};

const PANEL_WIDTH: f64 = 460.0;
const PLOT_HEIGHT: f64 = 260.0;
const MARGIN: f64 = 16.0;
const LEGEND_ROW: f64 = 18.0;
const SWATCH: f64 = 22.0;
const DASHES: [&str; 3] = ["", "7 3", "2 3"];

/// Curves and points over two axes, in one panel or in several side by side.
///
/// ```no_run
/// use gradus_train::picture::{Chart, Panel};
///
/// let epochs = (1..=20).map(f64::from);
/// Chart::new("Training")
///     .panel(
///         Panel::new("loss")
///             .labels("epoch", "cross-entropy")
///             .log_y()
///             .line("train", epochs.clone().map(|epoch| (epoch, (-0.3 * epoch).exp())))
///             .line("validation", epochs.clone().map(|epoch| (epoch, 0.1 + (-0.3 * epoch).exp()))),
///     )
///     .panel(Panel::new("fit").points("data", [(0.0, 0.1), (1.0, 0.9)]).line("y = x", [(0.0, 0.0), (1.0, 1.0)]))
///     .save("pictures/training.svg")?;
/// # Ok::<(), gradus_train::picture::PictureError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Chart {
    title: String,
    panels: Vec<Panel>,
    columns: usize,
}

impl Chart {
    /// A chart without panels yet; the title may be empty.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), panels: Vec::new(), columns: usize::MAX }
    }

    /// At most so many panels side by side (at least 1); the next ones stand below.
    pub fn columns(self, columns: usize) -> Self {
        Self { columns: columns.max(1), ..self }
    }

    /// Adds a panel at the right.
    pub fn panel(mut self, panel: Panel) -> Self {
        self.panels.push(panel);
        self
    }

    /// The picture as SVG text.
    pub fn to_svg(&self) -> String {
        let top = MARGIN + if self.title.is_empty() { 0.0 } else { 26.0 };
        let rows: Vec<&[Panel]> = self.panels.chunks(self.columns).collect();
        // Below each other all are equally wide.
        let widest = self.panels.iter().map(Panel::width).fold(0.0, f64::max);
        let own = |panel: &Panel| if rows.len() > 1 { widest } else { panel.width() };
        let needed = rows.iter().map(|row| row.iter().map(own).sum()).fold(0.0, f64::max);
        let width = needed.max(Font::TITLE.width(&self.title));
        // A long title widens all panels.
        let stretch = width / needed;
        // One height for all of a row, so that axes side by side are level.
        let heights = rows.iter().map(|row| {
            let legends = row.iter().map(|panel| panel.legend_height(own(panel) * stretch));
            let plots = row.iter().map(Panel::plot_height);
            (legends.fold(0.0, f64::max), plots.fold(PLOT_HEIGHT, f64::max))
        });
        let heights: Vec<(f64, f64)> = heights.collect();
        let whole = |(legend, plot): (f64, f64)| 22.0 + legend + plot + 44.0 + MARGIN;
        let height = top + heights.iter().copied().map(whole).sum::<f64>();

        let mut svg = Svg::new(width + 2.0 * MARGIN, height, &self.title);
        svg.text((width / 2.0 + MARGIN, MARGIN + 14.0), &self.title, &Font::TITLE);
        let mut y = top;
        for (row, &(legend, plot)) in rows.iter().zip(&heights) {
            let mut x = MARGIN;
            for panel in *row {
                panel.draw(&mut svg, (x, y), own(panel) * stretch, legend, plot);
                x += own(panel) * stretch;
            }
            y += whole((legend, plot));
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

/// One pair of axes with lines and points, for a [`Chart`].
///
/// What an axis cannot show (NaN, infinity; on a logarithmic axis 0 and less) is left out, and leaves a gap in a line.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    title: String,
    x_label: String,
    y_label: String,
    log_y: bool,
    series: Vec<Series>,
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    mark: Mark,
    points: Vec<(f64, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mark {
    Line,
    Points,
}

impl Panel {
    /// Axes without data yet; the title may be empty.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// What the axes mean.
    pub fn labels(mut self, x: impl Into<String>, y: impl Into<String>) -> Self {
        (self.x_label, self.y_label) = (x.into(), y.into());
        self
    }

    /// Makes the vertical axis logarithmic.
    pub fn log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// Adds a line through these points; a name puts it in the legend.
    pub fn line(self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.with(name.into(), Mark::Line, points)
    }

    /// Adds separate points; a name puts them in the legend.
    pub fn points(self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.with(name.into(), Mark::Points, points)
    }

    fn with(mut self, name: String, mark: Mark, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.series.push(Series { name, mark, points: points.into_iter().collect() });
        self
    }

    fn width(&self) -> f64 {
        let names = self.series.iter().map(|series| legend_width(&series.name) + 100.0);
        let titles = [Font::SUBTITLE.width(&self.title) + 20.0, Font::LABEL.width(&self.x_label) + 110.0];
        names.chain(titles).fold(PANEL_WIDTH, f64::max)
    }

    fn plot_height(&self) -> f64 {
        Font::LABEL.width(&self.y_label)
    }

    fn legend_height(&self, width: f64) -> f64 {
        let last_row = self.legend(width).last().map(|(_, _, row)| row + 1);
        last_row.map_or(0.0, |rows| LEGEND_ROW * rows as f64 + 4.0)
    }

    /// The index of each named series, and how far right and in which row of the legend it stands.
    fn legend(&self, width: f64) -> Vec<(usize, f64, usize)> {
        let (mut x, mut row) = (0.0, 0);
        let mut entries = Vec::new();
        for (index, series) in self.series.iter().enumerate().filter(|(_, series)| !series.name.is_empty()) {
            let needed = legend_width(&series.name);
            if x > 0.0 && x + needed > width - 100.0 {
                (x, row) = (0.0, row + 1);
            }
            entries.push((index, x, row));
            x += needed;
        }
        entries
    }

    fn draw(&self, svg: &mut Svg, (left, top): (f64, f64), width: f64, legend: f64, height: f64) {
        let shown = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && (!self.log_y || y > 0.0);
        let points = || self.series.iter().flat_map(|series| &series.points).filter(|point| shown(point));
        let x_axis = Axis::fit(points().map(|point| point.0), false);
        let y_axis = Axis::fit(points().map(|point| point.1), self.log_y);

        let y_ticks = y_axis.ticks(5);
        let widest = y_ticks.iter().map(|(_, label)| Font::TICK.width(label)).fold(0.0, f64::max);
        let plot_left = left + widest + if self.y_label.is_empty() { 10.0 } else { 30.0 };
        let plot_right = left + width - 22.0;
        let plot_top = top + 22.0 + legend;
        let bottom = plot_top + height;
        let place_x = |position: f64| plot_left + position * (plot_right - plot_left);
        let place_y = |position: f64| bottom - position * height;
        let middle = (plot_left + plot_right) / 2.0;

        svg.text((middle, top + 12.0), &self.title, &Font::SUBTITLE);
        self.draw_legend(svg, (plot_left, top + 26.0), width);

        let tick_right = Font { anchor: Anchor::End, ..Font::TICK };
        for (position, label) in y_ticks {
            let y = place_y(position);
            svg.line(&[(plot_left, y), (plot_right, y)], 1.0, LIGHT_GREY, "");
            svg.text((plot_left - 6.0, y + 4.0), &label, &tick_right);
        }
        for (position, label) in x_axis.ticks(6) {
            let x = place_x(position);
            svg.line(&[(x, bottom), (x, bottom + 4.0)], 1.0, GREY, "");
            svg.text((x, bottom + 17.0), &label, &Font::TICK);
        }
        svg.line(&[(plot_left, plot_top), (plot_left, bottom), (plot_right, bottom)], 1.0, GREY, "");
        svg.text((middle, bottom + 38.0), &self.x_label, &Font::LABEL);
        let upright = Font { rotation: -90.0, ..Font::LABEL };
        svg.text((left + 12.0, plot_top + height / 2.0), &self.y_label, &upright);

        // Lines last, so that a fitted line is not hidden by its points.
        for mark in [Mark::Points, Mark::Line] {
            for (index, series) in self.series.iter().enumerate().filter(|(_, series)| series.mark == mark) {
                let place = |&(x, y): &(f64, f64)| Some((place_x(x_axis.position(x)?), place_y(y_axis.position(y)?)));
                let placed: Vec<_> = series.points.iter().map(place).collect();
                draw_series(svg, index, mark, &placed);
            }
        }
    }

    fn draw_legend(&self, svg: &mut Svg, (left, top): (f64, f64), width: f64) {
        for (index, x, row) in self.legend(width) {
            let series = &self.series[index];
            let (x, y) = (left + x, top + LEGEND_ROW * row as f64);
            match series.mark {
                Mark::Line => draw_series(svg, index, Mark::Line, &[Some((x, y)), Some((x + SWATCH - 4.0, y))]),
                Mark::Points => draw_series(svg, index, Mark::Points, &[Some((x + SWATCH / 2.0 - 2.0, y))]),
            }
            let font = Font { anchor: Anchor::Start, ..Font::LABEL };
            svg.text((x + SWATCH, y + 4.0), &series.name, &font);
        }
    }
}

fn legend_width(name: &str) -> f64 {
    SWATCH + Font::LABEL.width(name) + 14.0
}

fn draw_series(svg: &mut Svg, index: usize, mark: Mark, points: &[Option<(f64, f64)>]) {
    let colour = PALETTE[index % PALETTE.len()];
    let dashes = DASHES[index / PALETTE.len() % DASHES.len()];
    match mark {
        Mark::Points => points.iter().flatten().for_each(|&point| svg.dot(point, 3.0, colour, 0.6)),
        Mark::Line => {
            for run in points.split(Option::is_none) {
                let run: Vec<_> = run.iter().copied().flatten().collect();
                match run[..] {
                    [] => {}
                    // A line of one point would be invisible.
                    [point] => svg.dot(point, 3.0, colour, 1.0),
                    _ => svg.line(&run, 2.0, colour, dashes),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(svg: &str, what: &str) -> usize {
        svg.matches(what).count()
    }

    #[test]
    fn unusual_points_leave_gaps() {
        let points =
            [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 3.0), (4.0, f64::INFINITY), (5.0, 1.0), (6.0, 2.0)];
        let svg = Chart::new("").panel(Panel::new("").line("", points)).to_svg();
        // Two pieces of line, and a dot where a point stands alone.
        assert_eq!((count(&svg, "stroke-width=\"2\""), count(&svg, "<circle")), (2, 1));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));

        let log = Chart::new("").panel(Panel::new("").log_y().points("", [(0.0, 0.0), (1.0, -1.0), (2.0, 5.0)]));
        assert_eq!(count(&log.to_svg(), "<circle"), 1);
    }

    #[test]
    fn nothing_to_show() {
        let empty = Chart::new("empty").to_svg();
        assert!(empty.starts_with("<svg") && empty.ends_with("</svg>\n"));
        let svg = Chart::new("").panel(Panel::new("p").log_y().line("none", []).points("", [(f64::NAN, 1.0)])).to_svg();
        assert!(!svg.contains("NaN") && svg.contains(">none</text>"));
    }

    #[test]
    fn names_wrap_into_rows() {
        let long = (0..9).fold(Panel::new(""), |panel, i| panel.line(format!("learning rate 0.{i}"), [(0.0, 1.0)]));
        let rows = long.legend(PANEL_WIDTH).last().unwrap().2 + 1;
        assert!((3..=5).contains(&rows), "{rows}");
        assert!(Panel::new("").line("x".repeat(200), []).width() > 1000.0);
    }

    #[test]
    fn saves_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chart.svg");
        let chart = Chart::new("A & B").panel(Panel::new("p").labels("x", "y").line("l", [(0.0, 0.0), (1.0, 1.0)]));
        chart.save(&path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        assert!(svg.contains(">A &amp; B</text>"));
    }
}
