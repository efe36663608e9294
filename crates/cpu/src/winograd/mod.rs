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
    Cotangent, Data, FilterGradients, Filters, Group, Layout, POINTS, Planes, Points, STEP, Tiles, TransformFilters,
    Untile, WINDOW,
};

/// Channels of both sides, below which transforms take longer than products that they save.
const CHANNELS: usize = 8;

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
        self.data.channels >= CHANNELS && self.outputs() >= CHANNELS && tiles >= TILES
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
        let (whole, pieces) = (usize::max(most / (rows * tiles), 1), usize::max(rows * tiles / most, 1));
        cut(images, whole)
            .flat_map(|images| (0..pieces).map(move |piece| (images.clone(), piece)))
            .map(|(images, piece)| Group { images, rows: piece * rows / pieces..(piece + 1) * rows / pieces, tiles })
            .collect()
    }

    /// The points of all filters, row after row.
    fn transform_filters(&self, filters: &Filters, values: &[f32]) -> Result<Kept> {
        let [rows, len] = filters.extents;
        let mut points = Kept::new(POINTS * rows * len);
        each_channel(&mut points, rows, len, |first, rows| {
            simd(TransformFilters { values, filters, first, rows });
            Ok(())
        })?;
        Ok(points)
    }

    /// The points of the tiles of a group, by channel.
    fn tiles<X, const FROM: usize>(
        &self,
        planes: &Planes<'_>,
        group: &Group,
        points: &mut [f32],
    ) -> Result<()>
    where
        for<'a> Tiles<'a, X, FROM>: pulp::WithSimd<Output = ()>,
    {
        each_channel(points, planes.layout.channels, group.len(), |first, channels| {
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
            let len = group.len();
            let mut points = Kept::new(POINTS * (inputs + outputs) * len);
            let (tiles, products) = points.split_at_mut(POINTS * inputs * len);
            self.tiles::<Data, 4>(&planes, &group, tiles)?;
            let multiply = |(point, out): (usize, &mut [f32])| {
                let (row, column) = if is_by_output { (inputs as isize, 1) } else { (1, outputs as isize) };
                let offset = (point * inputs * outputs) as isize;
                let filters = Matrix { source: filters, offset, rows: outputs, columns: inputs, row, column };
                let offset = (point * inputs * len) as isize;
                let tiles =
                    Matrix { source: &*tiles, offset, rows: len, columns: inputs, row: 1, column: len as isize };
                gemm_product(filters, tiles, out, Mode { adds: false, parallel: false });
                Ok(())
            };
            let work = POINTS * inputs * outputs * len / parallel::PER_ELEMENT;
            parallel::each_chunk(products, outputs * len, work, multiply)?;
            let channels: Vec<_> = by_channel(products.chunks(len), outputs).into_iter().zip(sums).collect();
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
        let planes = Planes { values, images: &self.images, layout: &self.data };
        let (matrix, groups) = (inputs * outputs, self.groups(0..self.images.len()));
        let mut points = Kept::new(self.sections() * POINTS * matrix);
        let add = |(group, points): (&Group, &mut [f32]), adds| {
            let len = group.len();
            let mut kept = Kept::new(POINTS * (inputs + outputs) * len);
            let (tiles, slopes) = kept.split_at_mut(POINTS * inputs * len);
            self.tiles::<Data, 4>(&planes, group, tiles)?;
            self.tiles::<Cotangent, 2>(cotangents, group, slopes)?;
            let matrix_of = |source, point: usize, rows: usize| Matrix {
                source,
                offset: (point * rows * len) as isize,
                rows,
                columns: len,
                row: len as isize,
                column: 1,
            };
            let multiply = |(point, out): (usize, &mut [f32])| {
                let (slopes, tiles) = (matrix_of(&*slopes, point, outputs), matrix_of(&*tiles, point, inputs));
                gemm_product(slopes, tiles, out, Mode { adds, parallel: false });
                Ok(())
            };
            parallel::each_chunk(points, matrix, POINTS * matrix * len / parallel::PER_ELEMENT, multiply)
        };
        let sections = self.sections();
        let work = groups.iter().map(Group::len).sum::<usize>() * POINTS * matrix / parallel::PER_ELEMENT;
        parallel::each_chunk(&mut points, POINTS * matrix, work, |(section, points)| {
            let own = section * groups.len() / sections..(section + 1) * groups.len() / sections;
            groups[own].iter().enumerate().try_for_each(|(number, group)| add((group, &mut *points), number > 0))
        })?;
        let (first, others) = points.split_at_mut(POINTS * matrix);
        parallel::each_chunk(first, matrix, sections * POINTS * matrix, |(point, sums)| {
            for section in others.chunks(POINTS * matrix) {
                sums.iter_mut().zip(&section[point * matrix..]).for_each(|(sum, part)| *sum += part);
            }
            Ok(())
        })?;
        let filters = gradient.chunks_mut(inputs * WINDOW * WINDOW);
        let rows: Vec<_> = by_channel(first.chunks(inputs), outputs).into_iter().zip(filters).collect();
        all(rows, POINTS * matrix, |rows| simd(FilterGradients { rows }))
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

/// Rows of points, all channels of one point after the other, by channel.
fn by_channel<T>(rows: impl Iterator<Item = T>, channels: usize) -> Vec<Points<T>> {
    let mut all: Vec<Vec<T>> = (0..channels).map(|_| Vec::with_capacity(POINTS)).collect();
    rows.enumerate().for_each(|(row, points)| all[row % channels].push(points));
    let points = |channel: Vec<T>| channel.try_into().unwrap_or_else(|_| unreachable!("a channel has all points"));
    all.into_iter().map(points).collect()
}

/// Runs a task on the points of some channels, from one on, in parallel if there are enough.
fn each_channel<'a>(
    points: &'a mut [f32],
    channels: usize,
    len: usize,
    task: impl Fn(usize, Vec<Points<&'a mut [f32]>>) -> Result<()> + Sync + Send,
) -> Result<()> {
    let elements = points.len();
    let channels = by_channel(points.chunks_mut(len), channels);
    let mut first = 0;
    let tasks = in_tasks(channels).into_iter().map(|channels| {
        first += channels.len();
        (first - channels.len(), channels)
    });
    parallel::map(tasks.collect(), elements, |(first, channels)| task(first, channels)).map(|_| ())
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
struct Kept(Vec<f32>);

/// How many a thread keeps, and how long they may be.
const KEPT: usize = 2;
const LONGEST: usize = 1 << 22;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

impl Kept {
    fn new(len: usize) -> Kept {
        let mut numbers = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        numbers.resize(len, 0.0);
        Kept(numbers)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.0);
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT && numbers.capacity() <= LONGEST {
                free.push(numbers);
            }
        });
    }
}

impl Deref for Kept {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}
