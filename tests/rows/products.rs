//! Matrix products.

use crate::layout::Layout;
use crate::support::Case;
use crate::{NUMBERS, Tested, check, factors, layout_of_turn, tunings};
use gradus_ir::DType;
use gradus_ir::op::{Op, PadAxis, SliceAxis};

/// The extents of the axes in each group of a product: batch, free on the left, free on the right, contracted.
type Groups = [&'static [usize]; 4];

fn check_product(on: &Tested, groups: Groups, dtype: DType, a_layout: Layout, b_layout: Layout) {
    let [batch, free_a, free_b, contracted] = groups;
    let (a_shape, b_shape) = ([batch, free_a, contracted].concat(), [batch, free_b, contracted].concat());
    let mut case = Case::default();
    let a = a_layout.operand(&mut case, &a_shape, |len| factors(dtype, len, 1));
    let b = b_layout.operand(&mut case, &b_shape, |len| factors(dtype, len, 2));
    let y = case.op(Op::Contract { batch: batch.len(), contracted: contracted.len() }, &[a, b]);
    check(on, case, &[y], ("matmul", groups, dtype, a_layout, b_layout));
}

#[test]
fn small_matrix_products() {
    // Up to two axes in each group; no axis means that the group is absent.
    let extents: [&[usize]; 6] = [&[], &[3], &[2, 3], &[1, 4], &[0], &[3, 0]];
    for on in &tunings() {
        // Every extent meets every other, if not in every combination.
        let some = if on.thorough { 1 } else { 23 };
        for i in (0..extents.len().pow(4)).step_by(some) {
            let groups = [i, i / 6, i / 36, i / 216].map(|i| extents[i % 6]);
            // Every combination of axes meets every dtype and many pairs of layouts.
            for (j, dtype) in on.of(&NUMBERS).into_iter().enumerate() {
                check_product(on, groups, dtype, layout_of_turn(i + i / 6), layout_of_turn(i + i / 6 + j));
            }
        }
    }
}

#[test]
fn products_with_nothing_but_padding() {
    for on in &tunings() {
        let mut case = Case::default();
        let x = case.input([3, 4, 8], factors(DType::F32, 96, 1));
        let pad = [PadAxis { low: 1, ..PadAxis::default() }, PadAxis::default(), PadAxis::default()];
        let padded = case.op(Op::Pad(pad.into()), &[x]);
        let first = [1, 4, 8].map(|len| SliceAxis { start: 0, step: 1, len });
        let nothing = case.op(Op::Slice(first.into()), &[padded]);
        let b = case.input([1, 36, 8], factors(DType::F32, 288, 2));
        let y = case.op(Op::Contract { batch: 1, contracted: 1 }, &[nothing, b]);
        check(on, case, &[y], ("matmul", "nothing but padding"));
    }
}

#[test]
fn large_matrix_products() {
    let large: [Groups; 7] = [
        [&[2], &[1], &[130], &[66]],
        [&[3], &[33], &[1], &[257]],
        [&[2, 2], &[5, 9], &[4, 8], &[6, 7]],
        [&[], &[1], &[1], &[5000]],
        // Whole vectors, but no whole tiles.
        [&[2], &[44], &[36], &[20]],
        [&[], &[70], &[65], &[130]],
        [&[], &[128], &[64], &[64]],
    ];
    for on in &tunings() {
        for (i, groups) in large.into_iter().enumerate() {
            for (j, dtype) in on.of(&NUMBERS).into_iter().enumerate() {
                for (k, layout) in Layout::ALL.into_iter().enumerate() {
                    // The reference takes its time for the largest.
                    if on.thorough && i < 5 || (i + j + k) % 3 == 0 {
                        check_product(on, groups, dtype, layout, Layout::Contiguous);
                        check_product(on, groups, dtype, Layout::Transposed, layout);
                    }
                }
            }
        }
    }
}

/// So many results that GPUs take their larger tiles, which have padding on all sides.
#[test]
fn products_in_large_tiles() {
    let tall: Groups = [&[128], &[100], &[61], &[20]];
    let wide: Groups = [&[64], &[250], &[120], &[20]];
    let layouts = [Layout::Contiguous, Layout::Transposed];
    for on in &tunings() {
        for dtype in on.of(&[DType::F32, DType::F16]) {
            for (groups, [a, b]) in [(tall, layouts), (wide, layouts), (wide, [layouts[1], layouts[0]])] {
                check_product(on, groups, dtype, a, b);
            }
        }
    }
}
