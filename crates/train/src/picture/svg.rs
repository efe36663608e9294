//! A writer of just the SVG elements that the pictures need.

use std::fmt::Write;

/// Text and axes.
pub(super) const INK: &str = "#222222";
/// Tick labels and captions' smaller print.
pub(super) const GREY: &str = "#6b6b6b";
/// Grid lines and frames.
pub(super) const LIGHT_GREY: &str = "#e4e4e4";

/// Tells data apart for the colour-blind as well (Okabe and Ito 2008, without yellow and black).
pub(super) const PALETTE: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// Where a text's position is: at its start, middle or end.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub(super) struct Font {
    pub(super) size: f64,
    pub(super) bold: bool,
    pub(super) colour: &'static str,
    pub(super) anchor: Anchor,
    /// Clockwise, in degrees.
    pub(super) rotation: f64,
}

impl Font {
    pub(super) const TITLE: Self = Self { size: 16.0, bold: true, ..Self::LABEL };
    pub(super) const SUBTITLE: Self = Self { size: 13.0, bold: true, ..Self::LABEL };
    pub(super) const LABEL: Self = Self { size: 12.0, bold: false, colour: INK, anchor: Anchor::Middle, rotation: 0.0 };
    pub(super) const TICK: Self = Self { size: 11.0, colour: GREY, ..Self::LABEL };

    /// About how wide a text will be. The viewer chooses the font, so this errs on the wide side.
    pub(super) fn width(&self, text: &str) -> f64 {
        let em = |c: char| match c {
            'i' | 'j' | 'l' | 't' | 'f' | 'I' | ' ' | '.' | ',' | ':' | '\'' | '|' => 0.36,
            'm' | 'w' | 'M' | 'W' | '%' => 0.98,
            'A'..='Z' => 0.76,
            // Letters of Europe, digits, arrows; past them mostly square ideographs.
            '\0'..='\u{2fff}' => 0.65,
            _ => 1.05,
        };
        let bold = if self.bold { 1.08 } else { 1.0 };
        text.chars().map(em).sum::<f64>() * self.size * bold
    }
}

/// An SVG document under construction. Coordinates are in pixels, y points down.
pub(super) struct Svg(String);

impl Svg {
    /// A white sheet, with a title for screen readers.
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        let (width, height) = (Number(width.ceil()), Number(height.ceil()));
        let mut svg = Self(String::new());
        svg.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" \
             font-family=\"Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif\">"
        ));
        svg.push(format_args!("<title>{}</title>", Escaped(title)));
        svg.push(format_args!("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"));
        svg
    }

    pub(super) fn finish(mut self) -> String {
        self.push(format_args!("</svg>"));
        self.0
    }

    pub(super) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        let (x, y, width, height) = (Number(x), Number(y), Number(width), Number(height));
        self.push(format_args!("<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"));
    }

    pub(super) fn dot(&mut self, (x, y): (f64, f64), radius: f64, fill: &str, opacity: f64) {
        let (x, y, r) = (Number(x), Number(y), Number(radius));
        self.push(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"{fill}\" fill-opacity=\"{opacity}\"/>"));
    }

    /// A line through these points; `dashes` as in `stroke-dasharray`, empty for a solid line.
    pub(super) fn line(&mut self, points: &[(f64, f64)], width: f64, stroke: &str, dashes: &str) {
        let mut path = String::new();
        for &(x, y) in points {
            let _ = write!(path, " {},{}", Number(x), Number(y));
        }
        let dashes = match dashes {
            "" => String::new(),
            _ => format!(" stroke-dasharray=\"{dashes}\""),
        };
        self.push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"{width}\" \
             stroke-linejoin=\"round\"{dashes}/>",
            path.trim_start()
        ));
    }

    /// A text on one line, with its base line at `y`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), text: &str, font: &Font) {
        if text.is_empty() {
            return;
        }
        let (x, y) = (Number(x), Number(y));
        let anchor = match font.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if font.bold { " font-weight=\"bold\"" } else { "" };
        let rotation = match font.rotation {
            0.0 => String::new(),
            angle => format!(" transform=\"rotate({angle} {x} {y})\""),
        };
        self.push(format_args!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\"{weight}{rotation}>{}</text>",
            font.size,
            font.colour,
            Escaped(text)
        ));
    }

    /// An image whose pixels are squares of `scale`, one path per colour, each path a list of rows' runs.
    pub(super) fn pixels<'p>(
        &mut self,
        (x, y): (f64, f64),
        scale: f64,
        paths: impl IntoIterator<Item = (String, &'p str)>,
    ) {
        self.push(format_args!(
            "<g transform=\"translate({} {}) scale({})\" shape-rendering=\"crispEdges\">",
            Number(x),
            Number(y),
            Number(scale)
        ));
        for (colour, path) in paths {
            self.push(format_args!("<path fill=\"{colour}\" d=\"{path}\"/>"));
        }
        self.push(format_args!("</g>"));
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{element}");
    }
}

/// A coordinate with at most two decimals.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Adding zero turns -0 into 0.
        write!(f, "{}", (self.0 * 100.0).round() / 100.0 + 0.0)
    }
}

/// A text as XML can hold it: markup escaped, control characters as spaces.
struct Escaped<'t>(&'t str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            c if c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c) => f.write_char(' '),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_the_markup() {
        let mut svg = Svg::new(10.0, 20.5, "a < b");
        svg.text((1.0, -0.001), "<script>&\n\u{0}", &Font::LABEL);
        let svg = svg.finish();
        assert!(svg.contains("viewBox=\"0 0 10 21\""));
        assert!(svg.contains("<title>a &lt; b</title>"));
        assert!(svg.contains("y=\"0\""));
        assert!(svg.contains(">&lt;script&gt;&amp;  </text>"), "{svg}");
    }
}
