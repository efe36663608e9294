//! What suits an adapter: numbers for each of two kinds, found by measuring, and what `gradus tune` found on one of them.

mod field;
mod folder;
mod table;

pub use field::{Applies, Field, NotLegal};
pub use folder::{TUNING, of_user, path_of, write};
pub use table::{Choice, Table, TableError, VERSION};

use gradus_device::{Device, Limits};

/// The invocations of a team.
pub(crate) const TEAM: usize = 8;

/// How kernels are cut into work. Those of its numbers that differ from adapter to adapter are [`Tuning::FIELDS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Invocations of a workgroup where they do not work together; a power of two.
    pub workgroup: u32,
    /// Whether workgroups share memory and meet at barriers: right for GPUs, dear where a CPU plays one.
    pub cooperates: bool,
    /// Whether subgroups of eight are teams, where workgroups do not cooperate: they share what they load in products and
    /// attention, and walk along a row together.
    pub teams: bool,
    /// Invocations that keep the adapter busy: fewer results than this are computed in parts, where there is enough to
    /// do for each.
    pub busy: usize,
    /// How long a row may be that one kernel walks along more than once, or writes while it reduces it.
    pub longest_row: usize,
    /// The same where a team walks along it.
    pub longest_team_row: usize,
    /// The most different values of a size (extent, stride, offset) that become part of a kernel's text; from then on
    /// the size is passed at run time. 0: always passed.
    pub baked_values: usize,
    /// Whether four neighbouring numbers are loaded as two words of 64 bits, where shaders have those: Mesa 22.3's software
    /// adapter puts what it loads into a vector one by one, some twenty cycles each, be they short or long.
    pub loads_pairs: bool,

    /// Invocations of a workgroup that walks along rows together; a power of two.
    pub row_workgroup: u32,
    /// Rows from this length on are worth several invocations, where workgroups cooperate or there are teams; these, for rows
    /// that are walked along once, from eight times it on.
    pub long_row: usize,
    /// Elements of a row that are worth an invocation, where several share the row.
    pub row_share: usize,
    /// Numbers that an invocation holds from one walk along a row to the next, at most: they lie in registers, or in a cache
    /// where a CPU plays the GPU.
    pub held: usize,
    /// Neighbouring rows that a workgroup walks down together: their elements at a place are a piece of memory that it pays
    /// to load. A power of two.
    pub abreast: usize,
    /// Elements of a row that are worth a workgroup of their own.
    pub row_segment: usize,
    /// Elements of a row, or products of a sum, that are worth an invocation of their own where it works alone.
    pub segment: usize,

    /// Tiles of a product that keep the adapter busy: tiles are as large as still leaves so many.
    pub tiles: usize,
    /// Places of a product's summed axis that are worth a workgroup of their own, and another kernel that sums up what these
    /// have found; four times as many where there are more than sixteen tiles.
    pub product_segment: usize,
    /// Multiplications of a product from which on it pays to compile a subgroup's tile of 64 rows.
    pub large_product: usize,
    /// The same of 64 columns, too.
    pub very_large_product: usize,
    /// Invocations that share a row of attention, at most, where a workgroup computes a tile: 8, 16 or 32.
    pub attention_columns: usize,

    /// Elements of a part of a long line of a scan, at least; four times as many of a short line.
    pub scan_segment: usize,
    /// The longest row that is sorted by counting what comes before each of its elements.
    pub counted_row: usize,
    /// Elements of a part of a row that is sorted by its digits, at least, where no workgroup sorts a tile.
    pub sort_segment: usize,
    /// Looks at an update of a scatter that are worth putting the updates into order first.
    pub scatter_looks: usize,
}

impl Tuning {
    /// Few threads with wide vectors; barriers and new kernels are dear.
    pub const SOFTWARE: Tuning = Tuning {
        workgroup: 64,
        cooperates: false,
        busy: 128,
        longest_row: 4096,
        baked_values: 0,
        loads_pairs: true,
        row_workgroup: 64,
        held: 256,
        scatter_looks: 1 << 20,
        ..Tuning::GPU
    };
    /// Very many threads.
    pub const GPU: Tuning = Tuning {
        workgroup: 128,
        cooperates: true,
        teams: true,
        busy: 1 << 16,
        longest_row: 8192,
        longest_team_row: 1 << 16,
        baked_values: 2,
        loads_pairs: false,
        row_workgroup: 128,
        long_row: 64,
        row_share: 16,
        held: 96,
        abreast: 8,
        row_segment: 4096,
        segment: 256,
        tiles: 128,
        product_segment: 256,
        large_product: 1 << 24,
        very_large_product: 1 << 28,
        attention_columns: 16,
        scan_segment: 64,
        counted_row: 256,
        sort_segment: 64,
        scatter_looks: 1 << 22,
    };

    /// What suits this device.
    pub fn of(device: &Device) -> Tuning {
        if device.is_software() { Tuning::SOFTWARE } else { Tuning::GPU }
    }

    /// Whether subgroups are teams on a device with these limits.
    pub(crate) fn has_teams(&self, limits: &Limits) -> bool {
        !self.cooperates && self.teams && limits.subgroup_size == Some((TEAM as u32, TEAM as u32))
    }

    /// How long a row may be there that one kernel walks along more than once, or writes while it reduces it.
    pub(crate) fn longest_row_on(&self, limits: &Limits) -> usize {
        if self.has_teams(limits) { self.longest_team_row } else { self.longest_row }
    }
}
