//! Index arithmetic: a kernel's space with as few axes as its accesses allow, and affine maps from it to elements.

use gradus_ir::{Guard, Shape, View};
use smallvec::SmallVec;

/// An affine map from an index of a space to an element.
#[derive(Clone, Debug)]
pub(crate) struct Affine {
    /// One for each axis of the space.
    pub(crate) axes: SmallVec<[Step; 4]>,
    /// The element at index 0 of every axis.
    pub(crate) offset: i64,
    /// Whether every index lies in padding.
    pub(crate) is_padding: bool,
}

/// How an axis of the space moves through the elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Elements between two neighbours.
    pub(crate) stride: i64,
    /// Padding, if there is any.
    pub(crate) guard: Option<Guard>,
}

impl Affine {
    /// The map of a view.
    pub(crate) fn of(view: &View) -> Affine {
        let axes = view.axes.iter().map(|a| Step { stride: a.stride as i64, guard: a.guard }).collect();
        Affine { axes, offset: view.offset as i64, is_padding: false }
    }

    /// The index along an axis.
    pub(crate) fn coordinate(rank: usize, axis: usize) -> Affine {
        let axes = (0..rank).map(|a| Step { stride: (a == axis) as i64, guard: None }).collect();
        Affine { axes, offset: 0, is_padding: false }
    }

    /// The row-major position in a shape.
    pub(crate) fn position(shape: &Shape) -> Affine {
        Affine::of(&View::contiguous(shape))
    }

    /// The step of the last axis; an axis that is not there stands still.
    pub(crate) fn last(&self) -> Step {
        self.axes.last().copied().unwrap_or(Step { stride: 0, guard: None })
    }
}

/// A space: groups of axes, of which each has a flat index of its own.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    /// Extents of all axes.
    pub(crate) extents: SmallVec<[usize; 4]>,
    /// How many axes each group has.
    pub(crate) groups: SmallVec<[usize; 4]>,
}

impl Space {
    /// The space of these groups of axes, made as simple as `maps` allow: axes of extent 1 vanish, and neighbours in one
    /// group merge where no map tells them apart.
    pub(crate) fn simplified(groups: &[&[usize]], maps: &mut [Affine]) -> Space {
        let mut space =
            Space { extents: groups.concat().into(), groups: groups.iter().map(|group| group.len()).collect() };
        let mut first = 0;
        for group in 0..groups.len() {
            let mut axis = first;
            while axis < first + space.groups[group] {
                if space.extents[axis] == 1 {
                    maps.iter_mut().for_each(|map| map.fix(axis));
                    space.remove(group, axis);
                } else if axis > first && maps.iter().all(|map| map.merges(axis, space.extents[axis])) {
                    for map in &mut *maps {
                        map.axes.remove(axis - 1);
                    }
                    space.extents[axis] *= space.extents[axis - 1];
                    space.remove(group, axis - 1);
                } else {
                    axis += 1;
                }
            }
            first += space.groups[group];
        }
        space
    }

    fn remove(&mut self, group: usize, axis: usize) {
        self.extents.remove(axis);
        self.groups[group] -= 1;
    }

    /// The axes of a group.
    pub(crate) fn axes(&self, group: usize) -> std::ops::Range<usize> {
        let first = self.groups[..group].iter().sum();
        first..first + self.groups[group]
    }
}

impl Affine {
    /// Removes an axis whose index is always 0.
    fn fix(&mut self, axis: usize) {
        let Step { stride, guard } = self.axes.remove(axis);
        match guard.map_or(Some(0), |guard| guard.element(0)) {
            Some(element) => self.offset += stride * element as i64,
            None => self.is_padding = true,
        }
    }

    /// Whether `axis`, of this extent, goes on where one step of the axis before it ends.
    fn merges(&self, axis: usize, extent: usize) -> bool {
        let (before, this) = (self.axes[axis - 1], self.axes[axis]);
        before.guard.is_none() && this.guard.is_none() && before.stride == this.stride * extent as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_ir::op::Op;

    #[test]
    fn axes_merge_where_every_map_agrees() {
        let shape = Shape::new(&[4, 1, 6, 5]);
        let whole = View::contiguous(&shape);
        let row = View::contiguous(&Shape::new(&[1, 1, 1, 5])).through(&Op::Expand, &shape).unwrap();
        let mut maps = [Affine::of(&whole)];
        assert_eq!(Space::simplified(&[&shape], &mut maps).extents[..], [120]);
        let mut maps = [Affine::of(&whole), Affine::of(&row)];
        let space = Space::simplified(&[&shape], &mut maps);
        assert_eq!(space.extents[..], [24, 5]);
        assert_eq!(maps[1].axes.iter().map(|s| s.stride).collect::<Vec<_>>(), [0, 1]);
        // A group's axes do not merge with another's.
        let mut maps = [Affine::of(&whole)];
        let space = Space::simplified(&[&shape[..2], &shape[2..]], &mut maps);
        assert_eq!((&space.extents[..], &space.groups[..]), (&[4, 30][..], &[1, 1][..]));
        assert_eq!(space.axes(1), 1..2);
    }

    #[test]
    fn an_axis_of_one_padded_element_is_padding_or_an_offset() {
        let step = |low| Step { stride: 1, guard: Some(Guard { low, count: 3, step: 1 }) };
        let map = |low| Affine { axes: [step(low)].as_slice().into(), offset: 7, is_padding: false };
        let mut maps = [map(1), map(-2)];
        Space::simplified(&[&[1]], &mut maps);
        assert!(maps[0].is_padding && !maps[1].is_padding);
        assert_eq!(maps[1].offset, 9);
    }
}
