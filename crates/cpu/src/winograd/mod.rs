//! Convolutions of f32 with windows of 3 × 3, one step apart, by Winograd's minimal filtering F(2 × 2, 3 × 3): four sums take 16
//! products in place of 36, and the gradient of the filters does as well.
//!
//! What goes into a sum is added up before it is multiplied, so a sum is as exact as the largest numbers among the 4 × 4 neighbours
//! that its tile is made of allow, also where its own window holds small ones alone. Where a result is not finite, the caller computes
//! all of them by windows: an infinity next to a window would make it not a number.

mod transforms;

use crate::loops::simd;
use crate::matrix::{Matrix, Mode, gemm_product};
use crate::parallel;
use gradus_ir::{Result, View};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use transforms::{
    BEHIND, Cotangent, Data, FilterGradients, Filters, Group, Layout, POINTS, Planes, Points, STEP, Sum, Tiles,
    TransformFilters, Untile, WINDOW, whole_vectors,
};

/// Channels of each side, below which transforms take longer than the products that they save. Sums take more of them: what is
/// made of all inputs is transformed for each output.
const CHANNELS: usize = 16;
const INPUTS_OF_SUMS: usize = 32;

/// Products of a point, below which it is not worth it either.
const PRODUCTS: usize = 1 << 20;

/// The numbers of the points of a group of tiles stay in the cache, but a group has so many tiles at least.
const GROUP: usize = 1 << 19;
const TILES: usize = 128;

/// Elements of the partial gradients of filters, and how many there may be of each.
const PARTIAL: usize = 1 << 21;
const SECTIONS: usize = 8;

/// A convolution made ready, or the gradient of its filters.
#[derive(Debug)]
pub(crate) struct Winograd {
    /// What windows are taken of.
    data: Layout,
    /// Where each image begins there.
    images: Vec<isize>,
    /// The rows and columns of sums.
    rows: usize,
    columns: usize,
    other: Other,
}

/// What windows are multiplied with.
#[derive(Debug)]
enum Other {
    /// Filters, each with all places of an image. Its rows are of one output channel, or of one input channel if not.
    Filters { filters: Filters, is_by_output: bool },
    /// The cotangents of images, with all places of a window.
    Cotangents { layout: Layout, images: Vec<isize> },
}

impl Winograd {
    /// A product of a convolution's form, whose views have `batch` leading and `contracted` trailing axes; `None` for any other, and
    /// where it would not be worth it.
    pub(crate) fn new([a, b]: [&View; 2], batch: usize, contracted: usize) -> Option<Winograd> {
        let is_plain = a.axes.iter().chain(&b.axes).all(|axis| axis.guard.is_none() && axis.extent > 0);
        let lens = [a.axes.len() - batch, b.axes.len() - batch];
        if !is_plain || contracted != 3 {
            return None;
        }
        match lens {
            [4, 5] => Winograd::convolution(a, b, batch),
            [4, 6] => Winograd::gradient(a, b, batch),
            _ => None,
        }
        .filter(Winograd::is_worth_it)
    }

    /// `[images…, outputs | inputs, 3, 3]` by `[images…, rows, columns | inputs, 3, 3]`.
    fn convolution(a: &View, b: &View, batch: usize) -> Option<Winograd> {
        let (Some([output, input, y, x]), Some([row, column, channel, down, right])) =
            (a.axes[batch..].first_chunk(), b.axes[batch..].first_chunk())
        else {
            return None;
        };
        let are_shared = a.axes[..batch].iter().all(|axis| axis.stride == 0 || axis.extent == 1);
        let is_window = y.extent == WINDOW && x.extent == WINDOW && row.stride == down.stride;
        if !are_shared || !is_window || column.stride != 1 || right.stride != 1 {
            return None;
        }
        let is_by_output = output.stride.abs() >= input.stride.abs();
        let [outer, inner] = if is_by_output { [output, input] } else { [input, output] };
        let filters = Filters {
            offset: a.offset,
            strides: [outer.stride, inner.stride],
            extents: [outer.extent, inner.extent],
            taps: [y.stride, x.stride],
        };
        Some(Winograd {
            data: Layout {
                channels: channel.extent,
                channel: channel.stride,
                row: row.stride,
                rows: row.extent + WINDOW - 1,
                columns: column.extent + WINDOW - 1,
            },
            images: places(b, 0..batch),
            rows: row.extent,
            columns: column.extent,
            other: Other::Filters { filters, is_by_output },
        })
    }

    /// `[1…, outputs | images, rows, columns]` by `[1…, inputs, 3, 3 | images, rows, columns]`.
    fn gradient(a: &View, b: &View, batch: usize) -> Option<Winograd> {
        let (Some([output, images, y, x]), Some([channel, down, right, _, row, column])) =
            (a.axes[batch..].first_chunk(), b.axes[batch..].first_chunk())
        else {
            return None;
        };
        let is_one = a.axes[..batch].iter().all(|axis| axis.extent == 1);
        let is_window = down.extent == WINDOW && right.extent == WINDOW && row.stride == down.stride;
        if !is_one || !is_window || [column.stride, right.stride, x.stride] != [1; 3] {
            return None;
        }
        let (rows, columns) = (row.extent, column.extent);
        Some(Winograd {
            data: Layout {
                channels: channel.extent,
                channel: channel.stride,
                row: row.stride,
                rows: rows + WINDOW - 1,
                columns: columns + WINDOW - 1,
            },
            images: places(b, batch + 3..batch + 4),
            rows,
            columns,
            other: Other::Cotangents {
                layout: Layout { channels: output.extent, channel: output.stride, row: y.stride, rows, columns },
                images: (0..images.extent as isize).map(|image| a.offset + image * images.stride).collect(),
            },
        })
    }

    /// Whether it takes less time than the products of windows.
    fn is_worth_it(&self) -> bool {
        let tiles = self.images.len() * self.rows.div_ceil(STEP) * self.columns.div_ceil(STEP);
        let (inputs, outputs) = (self.data.channels, self.outputs());
        let least = if matches!(self.other, Other::Filters { .. }) { INPUTS_OF_SUMS } else { CHANNELS };
        inputs >= least && outputs >= CHANNELS && tiles >= TILES && tiles * inputs * outputs >= PRODUCTS
    }

    /// The output channels of the convolution.
    fn outputs(&self) -> usize {
        match &self.other {
            Other::Filters { filters: Filters { extents: [outer, inner], .. }, is_by_output } => {
                if *is_by_output {
                    *outer
                } else {
                    *inner
                }
            }
            Other::Cotangents { layout, .. } => layout.channels,
        }
    }

    /// The bytes that a run takes for itself, beside the tiles of each thread.
    pub(crate) fn scratch(&self) -> usize {
        let copies = match &self.other {
            Other::Filters { .. } => 1,
            Other::Cotangents { .. } => self.sections(),
        };
        copies * POINTS * self.data.channels * self.outputs() * size_of::<f32>()
    }

    /// Computes the sums of some batch indices; tells whether all are finite. If not, none has a meaning.
    pub(crate) fn run(&self, indices: Range<usize>, sides: [&[f32]; 2], sums: &mut [f32]) -> Result<bool> {
        match &self.other {
            Other::Filters { filters, is_by_output } => {
                let points = self.transform_filters(filters, sides[0])?;
                self.convolve(&points, *is_by_output, indices, sides[1], sums)
            }
            Other::Cotangents { layout, images } => {
                let cotangents = Planes { values: sides[0], images, layout };
                self.filter_gradient(&cotangents, sides[1], sums)
            }
        }
    }

    /// Rows of tiles in groups, of so many channels altogether: some of an image, or all of some images. They depend on sizes alone.
    fn groups(&self, images: Range<usize>) -> Vec<Group> {
        let (rows, tiles) = (self.rows.div_ceil(STEP), self.columns.div_ceil(STEP));
        let most = usize::max(GROUP / POINTS / (self.data.channels + self.outputs()), TILES);
        let (whole, pieces) = (usize::max(most / (rows * tiles), 1), (rows * tiles / most).clamp(1, rows));
        cut(images, whole)
            .flat_map(|images| (0..pieces).map(move |piece| (images.clone(), piece)))
            .map(|(images, piece)| Group { images, rows: piece * rows / pieces..(piece + 1) * rows / pieces, tiles })
            .collect()
    }

    /// The points of all filters, row after row.
    fn transform_filters(&self, filters: &Filters, values: &[f32]) -> Result<Kept> {
        let [rows, len] = filters.extents;
        let room = whole_vectors(len);
        let mut points = Kept::new(POINTS * apart(rows, room));
        each_channel(&mut points, rows, room, |first, rows| {
            simd(TransformFilters { values, filters, first, rows });
            Ok(())
        })?;
        Ok(points)
    }

    /// The points of the tiles of a group, each with room behind.
    fn tiles<X, const FROM: usize>(&self, planes: &Planes<'_>, group: &Group, points: &mut [f32]) -> Result<()>
    where
        for<'a> Tiles<'a, X, FROM>: pulp::WithSimd<Output = ()>,
    {
        each_channel(points, planes.layout.channels, group.len() + BEHIND, |first, channels| {
            simd(Tiles::<X, FROM> { transform: PhantomData, planes, group, first, channels });
            Ok(())
        })
    }

    /// The sums of some images.
    fn convolve(
        &self,
        filters: &[f32],
        is_by_output: bool,
        images: Range<usize>,
        values: &[f32],
        sums: &mut [f32],
    ) -> Result<bool> {
        let (inputs, outputs) = (self.data.channels, self.outputs());
        let planes = Planes { values, images: &self.images, layout: &self.data };
        let elements = sums.len();
        let mut groups: Vec<(Group, Vec<Vec<&mut [f32]>>)> = self
            .groups(images.clone())
            .into_iter()
            .map(|group| (group, (0..outputs).map(|_| Vec::new()).collect()))
            .collect();
        let pieces = groups.iter().filter(|(group, _)| group.images.start == images.start).count();
        for (plane, mut rest) in sums.chunks_mut(self.rows * self.columns).enumerate() {
            let (image, output) = (images.start + plane / outputs, plane % outputs);
            let at = groups.partition_point(|(group, _)| group.images.end <= image);
            for (group, channels) in &mut groups[at..at + pieces] {
                let rows = (STEP * group.rows.end).min(self.rows) - STEP * group.rows.start;
                let (piece, later) = rest.split_at_mut(rows * self.columns);
                channels[output].push(piece);
                rest = later;
            }
        }
        let convolve = |(group, sums): (Group, Vec<Vec<&mut [f32]>>)| {
            let (len, room) = (group.len(), group.len() + BEHIND);
            let mut points = Kept::new(POINTS * (apart(inputs, room) + apart(outputs, len)));
            let (tiles, products) = points.split_at_mut(POINTS * apart(inputs, room));
            self.tiles::<Data, 4>(&planes, &group, tiles)?;
            each_point(products, [outputs, len, inputs], |point, out| {
                let [row, column] = if is_by_output { [whole_vectors(inputs), 1] } else { [1, whole_vectors(outputs)] };
                let offset = (point * filters.len() / POINTS) as isize;
                let (row, column) = (row as isize, column as isize);
                let filters = Matrix { source: filters, offset, rows: outputs, columns: inputs, row, column };
                let (offset, column) = ((point * apart(inputs, room)) as isize, room as isize);
                let tiles = Matrix { source: &*tiles, offset, rows: len, columns: inputs, row: 1, column };
                gemm_product(filters, tiles, out, Mode { adds: false, parallel: false });
            })?;
            let points = to_the_end(products, outputs, len).into_iter();
            let channels = points.zip(sums).map(|(points, images)| Sum { points, images }).collect();
            all(channels, outputs * len, |channels| simd(Untile { group: &group, columns: self.columns, channels }))
        };
        Ok(parallel::map(groups, elements, convolve)?.into_iter().all(|is_finite| is_finite))
    }

    /// How many parts of the gradient of the filters are computed side by side, each of some images.
    fn sections(&self) -> usize {
        let sections = PARTIAL / (POINTS * self.data.channels * self.outputs());
        sections.clamp(1, SECTIONS).min(self.groups(0..self.images.len()).len())
    }

    /// The gradient of the filters.
    fn filter_gradient(&self, cotangents: &Planes<'_>, values: &[f32], gradient: &mut [f32]) -> Result<bool> {
        let (inputs, outputs) = (self.data.channels, self.outputs());
        let (matrix, groups) = (inputs * outputs, self.groups(0..self.images.len()));
        let (count, section) = (self.sections(), POINTS * apart(outputs, inputs));
        let mut sections = Kept::new(count * section);
        let work = groups.iter().map(Group::len).sum::<usize>() * POINTS * matrix / parallel::PER_ELEMENT;
        parallel::each_chunk(&mut sections, section, work, |(number, sums)| {
            let own = number * groups.len() / count..(number + 1) * groups.len() / count;
            groups[own].iter().enumerate().try_for_each(|(i, group)| self.add(group, cotangents, values, sums, i > 0))
        })?;
        let (sums, others) = sections.split_at_mut(section);
        parallel::each_chunk(sums, section / POINTS, count * section, |(point, sums)| {
            for section in others.chunks(section) {
                let parts = &section[point * sums.len()..];
                sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
            }
            Ok(())
        })?;
        let filters = gradient.chunks_mut(inputs * WINDOW * WINDOW);
        let rows = to_the_end(sums, outputs, inputs).into_iter().zip(filters).collect();
        all(rows, section, |rows| simd(FilterGradients { rows }))
    }

    /// The sums of the points of a group's tiles, or adds them to what is there.
    fn add(&self, group: &Group, cotangents: &Planes<'_>, values: &[f32], sums: &mut [f32], adds: bool) -> Result<()> {
        let (inputs, outputs) = (self.data.channels, self.outputs());
        let planes = Planes { values, images: &self.images, layout: &self.data };
        let (len, room) = (group.len(), group.len() + BEHIND);
        let mut points = Kept::new(POINTS * (apart(inputs, room) + apart(outputs, room)));
        let (tiles, slopes) = points.split_at_mut(POINTS * apart(inputs, room));
        self.tiles::<Data, 4>(&planes, group, tiles)?;
        self.tiles::<Cotangent, 2>(cotangents, group, slopes)?;
        each_point(sums, [outputs, inputs, len], |point, out| {
            let matrix = |source, rows: usize| {
                let offset = (point * apart(rows, room)) as isize;
                Matrix { source, offset, rows, columns: len, row: room as isize, column: 1 }
            };
            gemm_product(matrix(&*slopes, outputs), matrix(&*tiles, inputs), out, Mode { adds, parallel: false });
        })
    }
}

/// Where a view is at each index of some of its axes.
fn places(view: &View, axes: Range<usize>) -> Vec<isize> {
    view.axes[axes].iter().fold(vec![view.offset], |places, axis| {
        let along = |place: isize| (0..axis.extent as isize).map(move |index| place + index * axis.stride);
        places.into_iter().flat_map(along).collect()
    })
}

/// A range in pieces that differ by one element at most.
fn cut(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let pieces = range.len().div_ceil(most);
    let at = move |piece: usize| range.start + piece * range.len() / pieces;
    (0..pieces).map(move |piece| at(piece)..at(piece + 1))
}

/// The rows of all points, by channel.
fn by_channel<T>(mut rows: Vec<impl Iterator<Item = T>>, channels: usize) -> Vec<Points<T>> {
    let channel = |_| std::array::from_fn(|point| rows[point].next().expect("a point has all channels"));
    (0..channels).map(channel).collect()
}

/// Numbers from a point to the next one, where it has so many of each channel. Points begin in different lines of the cache, since one
/// number of each is written at a time.
fn apart(channels: usize, len: usize) -> usize {
    channels * len + BEHIND
}

/// The points of each channel, each up to the end of the array.
fn to_the_end(points: &[f32], channels: usize, len: usize) -> Vec<Points<&[f32]>> {
    let row = |channel| std::array::from_fn(|point| &points[point * apart(channels, len) + channel * len..]);
    (0..channels).map(row).collect()
}

/// Runs a task on the points of some channels, from one on, in parallel if there are enough.
fn each_channel<'a>(
    points: &'a mut [f32],
    channels: usize,
    len: usize,
    task: impl Fn(usize, Vec<Points<&'a mut [f32]>>) -> Result<()> + Sync + Send,
) -> Result<()> {
    let elements = points.len();
    let matrices = points.chunks_mut(apart(channels, len)).map(|matrix| matrix.chunks_mut(len)).collect();
    let mut first = 0;
    let tasks = in_tasks(by_channel(matrices, channels)).into_iter().map(|channels| {
        first += channels.len();
        (first - channels.len(), channels)
    });
    parallel::map(tasks.collect(), elements, |(first, channels)| task(first, channels)).map(|_| ())
}

/// Computes the products of all points, in parallel if it is worth it.
fn each_point(
    sums: &mut [f32],
    [rows, columns, terms]: [usize; 3],
    multiply: impl Fn(usize, &mut [f32]) + Sync + Send,
) -> Result<()> {
    let work = POINTS * rows * columns * terms / parallel::PER_ELEMENT;
    parallel::each_chunk(sums, apart(rows, columns), work, |(point, sums)| {
        let (sums, behind) = sums.split_at_mut(rows * columns);
        behind.fill(0.0);
        multiply(point, sums);
        Ok(())
    })
}

/// Whether a condition holds for some items at a time, in parallel if `elements` altogether are enough.
fn all<T: Send>(items: Vec<T>, elements: usize, holds: impl Fn(Vec<T>) -> bool + Sync + Send) -> Result<bool> {
    let parts = parallel::map(in_tasks(items), elements, |items| Ok(holds(items)))?;
    Ok(parts.into_iter().all(|holds| holds))
}

/// Items as tasks for all threads, each of some neighbours.
fn in_tasks<T>(items: Vec<T>) -> Vec<Vec<T>> {
    let size = items.len().div_ceil(parallel::tasks()).max(1);
    let mut items = items.into_iter().peekable();
    let mut tasks = Vec::new();
    while items.peek().is_some() {
        tasks.push(items.by_ref().take(size).collect());
    }
    tasks
}

/// Numbers that a thread keeps when they are not needed any more, so that later ones find their memory. They have no meaning at first.
struct Kept {
    numbers: Vec<f32>,
    len: usize,
}

/// How many a thread keeps, and how long they may be.
const KEPT: usize = 2;
const LONGEST: usize = 5 << 20;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

impl Kept {
    fn new(len: usize) -> Kept {
        let mut numbers = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        numbers.resize(numbers.len().max(len), 0.0);
        Kept { numbers, len }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT && numbers.len() <= LONGEST {
                free.push(numbers);
            }
        });
    }
}

impl Deref for Kept {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.numbers[..self.len]
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_ir::ViewAxis;

    fn view(offset: isize, axes: &[(usize, isize)]) -> View {
        View { axes: axes.iter().map(|&(extent, stride)| ViewAxis { extent, stride, guard: None }).collect(), offset }
    }

    /// Small whole numbers, of which every sum here is exact.
    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i * 7 % 11) as f32 - 5.0).collect()
    }

    /// What a product of two views is, sum by sum.
    fn product([a, b]: [&View; 2], batch: usize, [x, y]: [&[f32]; 2]) -> Vec<f32> {
        let (free_of_a, free_of_b) = (a.axes.len() - 3, b.axes.len() - 3);
        let all = places(a, 0..batch).into_iter().zip(places(b, 0..batch)).flat_map(|(a_at, b_at)| {
            let rows = places(&View { offset: a_at, ..a.clone() }, batch..free_of_a);
            let columns = places(&View { offset: b_at, ..b.clone() }, batch..free_of_b);
            rows.into_iter().flat_map(move |row| columns.clone().into_iter().map(move |column| (row, column)))
        });
        let (a_terms, b_terms) = (
            places(&View { offset: 0, ..a.clone() }, free_of_a..a.axes.len()),
            places(&View { offset: 0, ..b.clone() }, free_of_b..b.axes.len()),
        );
        let sum = |(row, column): (isize, isize)| {
            let terms = a_terms.iter().zip(&b_terms);
            terms.map(|(&i, &j)| x[(row + i) as usize] * y[(column + j) as usize]).sum()
        };
        all.map(sum).collect()
    }

    /// Rows and columns of images, even and odd, and how many there are.
    const SIZES: &[(usize, usize, usize)] = match cfg!(miri) {
        true => &[(1, 1, 1), (2, 3, 2)],
        false => &[(1, 1, 1), (2, 3, 2), (5, 4, 3), (3, 36, 1), (7, 33, 2), (6, 18, 2)],
    };

    fn run(winograd: &Winograd, sides: [&[f32]; 2], len: usize) -> Vec<f32> {
        // Whatever a thread has kept does not matter.
        FREE.with_borrow_mut(|free| free.iter_mut().flatten().for_each(|number| *number = f32::NAN));
        let mut sums = vec![f32::NAN; len];
        assert!(winograd.run(0..winograd.images.len(), sides, &mut sums).unwrap());
        sums
    }

    #[test]
    fn convolutions_are_the_products_of_their_windows() {
        let (inputs, outputs) = (3, 5);
        for ((rows, columns, images), is_by_output) in SIZES.iter().flat_map(|&size| [(size, true), (size, false)]) {
            let (h, w) = (rows as isize + 2, columns as isize + 2);
            let [i, o] = [inputs as isize, outputs as isize];
            // As a convolution has its filters, and as the gradient of its input has them: turned around.
            let (from, by_output, by_input, tap) = if is_by_output { (0, 9 * i, 9, 1) } else { (8, 9, 9 * o, -1) };
            let filters = [(outputs, by_output), (inputs, by_input), (3, 3 * tap), (3, tap)];
            let a = view(from, &[&[(images, 0), (1, 7)][..], &filters].concat());
            let windows = [(rows, w), (columns, 1), (inputs, h * w), (3, w), (3, 1)];
            let b = view(0, &[&[(images, i * h * w), (1, 7)][..], &windows].concat());
            let sides = [&numbers(outputs * inputs * 9)[..], &numbers(images * inputs * (h * w) as usize)];
            let winograd = Winograd::convolution(&a, &b, 2).unwrap();
            let expected = product([&a, &b], 2, sides);
            assert_eq!(run(&winograd, sides, expected.len()), expected, "{images} of {rows} × {columns}");
        }
    }

    #[test]
    fn gradients_of_filters_are_the_products_of_windows() {
        let (inputs, outputs) = (3, 5);
        for &(rows, columns, images) in SIZES {
            let (h, w) = (rows as isize + 2, columns as isize + 2);
            let (plane, wide) = ((rows * columns) as isize, h * w);
            let own = [(outputs, plane), (images, outputs as isize * plane), (rows, columns as isize), (columns, 1)];
            let windows = [(inputs, wide), (3, w), (3, 1), (images, inputs as isize * wide), (rows, w), (columns, 1)];
            let (a, b) = (view(0, &own), view(0, &windows));
            let sides = [&numbers(images * outputs * rows * columns)[..], &numbers(images * inputs * (h * w) as usize)];
            let winograd = Winograd::gradient(&a, &b, 0).unwrap();
            let expected = product([&a, &b], 0, sides);
            assert_eq!(run(&winograd, sides, expected.len()), expected, "{images} of {rows} × {columns}");
        }
    }

    #[test]
    fn groups_are_all_tiles_once() {
        for (rows, columns, channels, images) in
            [(1, 1, 8, 200), (7, 7, 512, 8), (64, 63, 64, 3), (300, 20, 8, 2), (3, 9000, 16, 1), (5, 5, 2000, 1)]
        {
            let layout = || Layout { channels, channel: 0, row: 0, rows, columns };
            let other = Other::Cotangents { layout: layout(), images: Vec::new() };
            let winograd = Winograd { data: layout(), images: vec![0; images], rows, columns, other };
            let mut times = vec![0; images * rows.div_ceil(STEP)];
            for Group { images, rows: own, tiles } in winograd.groups(0..images) {
                assert!(tiles == columns.div_ceil(STEP) && !own.is_empty());
                images.for_each(|image| own.clone().for_each(|row| times[image * rows.div_ceil(STEP) + row] += 1));
            }
            assert!(times.iter().all(|&times| times == 1), "{rows} × {columns} of {channels} channels: {times:?}");
        }
    }

    #[test]
    fn what_is_not_finite_is_told() {
        let windows = [(4, 6), (4, 1), (1, 36), (3, 6), (3, 1)];
        let filter = [(1, 9), (1, 9), (3, 3), (3, 1)];
        let winograd = Winograd::convolution(&view(0, &filter), &view(0, &windows), 0).unwrap();
        for (side, place, number) in [(1, 0, f32::NAN), (1, 35, f32::INFINITY), (0, 4, f32::NEG_INFINITY)] {
            let mut sides = [numbers(9), numbers(36)];
            sides[side][place] = number;
            let found = winograd.run(0..1, [&sides[0], &sides[1]], &mut [0.0; 16]);
            assert!(!found.unwrap(), "{number} at {place}");
        }
    }
}
