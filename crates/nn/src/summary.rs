//! What a model is made of, layer by layer.

use crate::parts::Parts;
use crate::watch::Call;
use crate::{Layer, Param};
use gradus_tensor::graph::NodeRef;
use gradus_tensor::{Device, Result, Shape, Tensor};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// A model as a table: of each layer its output's shape, its parameters and its multiply-adds; below it, what the whole model takes.
///
/// Nothing is computed, and nothing changes: the forward pass is recorded once, as in use (without dropout, with running
/// statistics), and read. So multiply-adds are exact for any layer, those of a user too: they are those of the matrix products
/// (convolutions are such products) and of attention. Where layers that use [`watch`](crate::watch) are in others that do not, these
/// others have rows without a shape.
///
/// ```
/// use gradus_nn::{Conv2d, Flatten, Init, Linear, Relu, Sequential, summary};
/// use gradus_tensor::Device;
/// let init = Init::new(0, &Device::cpu());
/// let model = Sequential::new()
///     .then(Conv2d::new(1, 8, 3, &init))
///     .then(Relu)
///     .then(Flatten)
///     .then(Linear::new(8 * 26 * 26, 10, &init));
/// let summary = summary(&model, [1, 1, 28, 28])?;
/// assert_eq!(summary.parameters, 8 * 9 + 8 + 5408 * 10 + 10);
/// assert_eq!(summary.multiply_adds, 8 * 26 * 26 * 9 + 5408 * 10);
/// assert_eq!(summary.layers[1].path, "0");
/// assert_eq!(summary.layers[1].output.as_ref().unwrap()[..], [1, 8, 26, 26]);
/// println!("{summary}");
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Summary {
    /// The model, and then the layers in it: each before those that it is made of.
    pub layers: Vec<LayerSummary>,
    /// The number of numbers in parameters.
    pub parameters: usize,
    /// Those that are trained.
    pub trainable_parameters: usize,
    /// Multiplications of matrix products and attention, each with an addition, for one forward pass.
    pub multiply_adds: usize,
    /// The bytes of parameters.
    pub parameter_bytes: usize,
    /// The bytes of the input.
    pub input_bytes: usize,
    /// The bytes of what the innermost layers give: about what training keeps from the forward pass for the backward one, without
    /// what fusion saves.
    pub output_bytes: usize,
}

/// A row of a [`Summary`].
#[derive(Clone, Debug)]
pub struct LayerSummary {
    /// Where it is in the model; empty for the model itself.
    pub path: String,
    /// The type's name, without its modules.
    pub kind: String,
    /// How many layers it lies in.
    pub depth: usize,
    /// The shape of what it gave last.
    pub output: Option<Shape>,
    /// How often it was used.
    pub uses: usize,
    /// The numbers in its own parameters, without those of layers in it that have rows, and without those that a row above has (tied
    /// weights).
    pub parameters: usize,
    /// Those that are trained.
    pub trainable_parameters: usize,
    /// Its own multiply-adds, without those of layers in it that have rows.
    pub multiply_adds: usize,
}

/// The summary of a model for inputs of a shape, as zeros on the device and of the dtype of the first parameter (on the CPU, if
/// there is none). [`Summary::of`] takes other inputs, such as tokens.
///
/// # Errors
/// What the forward pass carries as an error: a shape that does not fit, for one.
#[track_caller]
pub fn summary(model: &(impl Layer + ?Sized), input: impl Into<Shape>) -> Result<Summary> {
    let first = model.parameters().into_iter().next().map(|(_, parameter)| parameter.cell().tensor());
    let input = match first {
        Some(parameter) => Tensor::zeros(input, &parameter),
        None => Tensor::zeros(input, &Device::cpu()),
    };
    Summary::of(model, &input)
}

impl Summary {
    /// The summary of a model for an input.
    ///
    /// # Errors
    /// What the forward pass carries as an error.
    #[track_caller]
    pub fn of(model: &(impl Layer + ?Sized), input: &Tensor) -> Result<Summary> {
        let parts = Parts::of(model);
        let (output, calls) = parts.watched_in_use(|| model.forward(input));
        let mut rows = Rows::new(&parts, &calls);
        rows.layers[0].output = Some(output.shape().clone());
        rows.add_parameters(&parts);
        rows.add_work(&calls, &NodeRef::new(&output)?)?;
        let layers = rows.layers;
        let total = |number: fn(&LayerSummary) -> usize| layers.iter().map(number).sum();
        let innermost = |row: usize| layers.get(row + 1).is_none_or(|next| next.depth <= layers[row].depth);
        let output_bytes = calls.iter().zip(&rows.row_of_call).filter_map(|(call, &row)| {
            let output = call.output.as_ref().filter(|_| innermost(row))?;
            Some(output.numel() * output.dtype().size())
        });
        Ok(Summary {
            parameters: total(|row| row.parameters),
            trainable_parameters: total(|row| row.trainable_parameters),
            multiply_adds: total(|row| row.multiply_adds),
            parameter_bytes: rows.parameter_bytes,
            input_bytes: input.numel() * input.dtype().size(),
            output_bytes: output_bytes.sum(),
            layers,
        })
    }
}

struct Rows {
    layers: Vec<LayerSummary>,
    row_of_call: Vec<usize>,
    parameter_bytes: usize,
}

impl Rows {
    /// A row for the model, for each part that was used or has parameters, and for those that such parts are in.
    fn new(parts: &Parts, calls: &[Call]) -> Rows {
        let places = parts.places_of(calls);
        let used: HashSet<usize> = places.iter().copied().collect();
        let path = |place: usize| parts.paths[place].0.as_str();
        // Also for layers that are not used, or do not say so: those that hold parameters themselves.
        let owners: HashSet<&str> =
            parts.parameters.iter().filter_map(|(path, _)| Some(path.rsplit_once('.')?.0)).collect();
        let has_row = |place: usize| {
            let is_owner = || owners.contains(path(place));
            place == 0 || is_owner() || used.iter().any(|&other| is_within(path(other), path(place)))
        };
        let rows: Vec<usize> = (0..parts.paths.len()).filter(|&place| has_row(place)).collect();
        let depth =
            |place: usize| rows.iter().filter(|&&other| other != place && is_within(path(place), path(other))).count();
        let mut layers: Vec<LayerSummary> = rows
            .iter()
            .map(|&place| LayerSummary {
                path: path(place).to_string(),
                kind: short_name(parts.paths[place].1),
                depth: depth(place),
                output: None,
                uses: 0,
                parameters: 0,
                trainable_parameters: 0,
                multiply_adds: 0,
            })
            .collect();
        let row_of: HashMap<usize, usize> = rows.iter().enumerate().map(|(row, &place)| (place, row)).collect();
        let row_of_call: Vec<usize> = places.iter().map(|place| row_of[place]).collect();
        for (call, &row) in calls.iter().zip(&row_of_call) {
            layers[row].uses += 1;
            layers[row].output = call.output.as_ref().map(|output| output.shape().clone());
        }
        layers[0].uses = 1;
        Rows { layers, row_of_call, parameter_bytes: 0 }
    }

    /// Each parameter belongs to the innermost row that it lies in, once.
    fn add_parameters(&mut self, parts: &Parts) {
        let mut seen: Vec<&Param> = Vec::new();
        for (path, parameter) in &parts.parameters {
            if seen.iter().any(|other| other.cell().same(parameter.cell())) {
                continue;
            }
            seen.push(parameter);
            let numbers = parameter.shape().numel();
            self.parameter_bytes += numbers * parameter.cell().tensor().dtype().size();
            let rows = self.layers.iter_mut().filter(|row| is_within(path, &row.path));
            if let Some(row) = rows.max_by_key(|row| row.path.len()) {
                row.parameters += numbers;
                row.trainable_parameters += if parameter.is_frozen() { 0 } else { numbers };
            }
        }
    }

    /// Each product belongs to the innermost forward pass that recorded it.
    fn add_work(&mut self, calls: &[Call], output: &NodeRef) -> Result<()> {
        let earliest = calls.iter().map(|call| call.since).min().unwrap_or(0);
        let (mut seen, mut stack) = (HashSet::from([output.id()]), vec![output.clone()]);
        // Passes by where they begin: the last one that has begun, and not ended, is the innermost.
        let by_start: BTreeMap<u64, Vec<usize>> =
            calls.iter().enumerate().fold(BTreeMap::new(), |mut map, (i, call)| {
                map.entry(call.since).or_insert_with(Vec::new).push(i);
                map
            });
        while let Some(node) = stack.pop() {
            let id = node.id();
            let operands = node.operands().unwrap_or_default();
            let work = node.multiply_adds();
            if work > 0 {
                let begun = by_start.range(..=id).rev().flat_map(|(_, calls)| calls.iter().rev());
                let row = begun.copied().find(|&call| calls[call].until > id).map_or(0, |call| self.row_of_call[call]);
                self.layers[row].multiply_adds += work;
            }
            // Behind the forward pass lie parameters and inputs.
            stack.extend(operands.into_iter().filter(|operand| operand.id() >= earliest && seen.insert(operand.id())));
        }
        Ok(())
    }
}

/// Whether a path is another one, or lies in it.
fn is_within(path: &str, outer: &str) -> bool {
    match path.strip_prefix(outer) {
        Some(rest) => outer.is_empty() || rest.is_empty() || rest.starts_with('.'),
        None => false,
    }
}

/// A type's name without modules: `Residual<Sequential>` for `a::Residual<b::Sequential>`.
pub(crate) fn short_name(type_name: &str) -> String {
    let words = type_name.split_inclusive(['<', '>', ',', ' ', '[', ']', '(', ')', '&', ';']);
    words.map(|word| word.rsplit("::").next().unwrap_or(word)).collect()
}

/// A number with a comma between thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = vec![["Layer", "Output shape", "Parameters", "Multiply-adds"].map(String::from)];
        for (i, row) in self.layers.iter().enumerate() {
            // A line goes down where a later layer of the same depth is in the same one.
            let follows = |depth: usize| {
                let later = self.layers[i + 1..].iter().find(|later| later.depth <= depth);
                later.is_some_and(|later| later.depth == depth)
            };
            let lines: String = (1..row.depth).map(|depth| if follows(depth) { "│  " } else { "   " }).collect();
            let branch = match row.depth {
                0 => "",
                depth if follows(depth) => "├─ ",
                _ => "└─ ",
            };
            let parent = self.layers[..i].iter().rev().find(|earlier| earlier.depth < row.depth);
            let name = parent.map_or(&row.path[..], |parent| &row.path[parent.path.len()..]).trim_start_matches('.');
            let name = if name.is_empty() { row.kind.clone() } else { format!("{name}: {}", row.kind) };
            let uses = if row.uses > 1 { format!(" (used {} times)", row.uses) } else { String::new() };
            let output = row.output.as_ref().map_or("–".into(), Shape::to_string);
            let number = |n: usize| if n == 0 { "–".into() } else { grouped(n) };
            let frozen = if row.trainable_parameters < row.parameters { " (frozen)" } else { "" };
            let parameters = format!("{}{frozen}", number(row.parameters));
            table.push([format!("{lines}{branch}{name}{uses}"), output, parameters, number(row.multiply_adds)]);
        }
        let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 4] = std::array::from_fn(width);
        let rule = "─".repeat(widths.iter().sum::<usize>() + 6);
        for (i, [layer, output, parameters, work]) in table.iter().enumerate() {
            let [a, b, c, d] = widths;
            writeln!(f, "{layer:<a$}  {output:<b$}  {parameters:>c$}  {work:>d$}")?;
            if i == 0 {
                writeln!(f, "{rule}")?;
            }
        }
        writeln!(f, "{rule}")?;
        let frozen = self.parameters - self.trainable_parameters;
        writeln!(
            f,
            "Parameters: {} ({} trained, {} frozen)",
            grouped(self.parameters),
            grouped(self.trainable_parameters),
            grouped(frozen)
        )?;
        writeln!(f, "Multiply-adds: {}", grouped(self.multiply_adds))?;
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        write!(
            f,
            "Memory: input {:.2} MiB, outputs of layers {:.2} MiB, parameters {:.2} MiB",
            mib(self.input_bytes),
            mib(self.output_bytes),
            mib(self.parameter_bytes)
        )
    }
}
