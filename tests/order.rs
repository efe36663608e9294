//! What is composed along an axis in order, and in Einstein's notation: values against naive loops, on every device.

#[allow(dead_code)] // This file uses a part of it.
#[path = "support/bench.rs"]
mod bench;
#[path = "support/devices.rs"]
mod devices;

use bench::{device, mixed, new, on_each_device};
use gradus::ir::op::Op;
use gradus::tensor::graph::trace;
use gradus::{DType, Key, Result, Tensor, einsum, vmap};
use std::collections::BTreeMap;
use std::slice::from_ref;

/// As many as are asked for of what a sort gives, whatever their number, of rows in which many are equal.
#[test]
fn the_largest_are_the_first_of_a_sort() {
    let body = || -> Result<()> {
        let numbers: Vec<i32> = (0..3 * 700).map(|i| i * i % 1009 - 500).collect();
        let x = new(numbers).reshape([3, 700]);
        // The logarithms of negative numbers are NaN.
        for x in [x.to_dtype(DType::F32), x.to_dtype(DType::F32).log(), x.eq(9), x] {
            for (x, axis) in [(&x, 1), (&x.t(), 0)] {
                for (k, largest) in [0, 1, 5, 40, 350, 699, 700].into_iter().flat_map(|k| [(k, false), (k, true)]) {
                    let order = x.argsort(axis, largest).slice(axis, ..k as isize);
                    let (values, indices) = x.topk(k, axis, largest);
                    assert_eq!(indices.to_vec::<i32>()?, order.to_vec::<i32>()?, "{k} along {axis}");
                    let bits = |x: Tensor| -> Result<Vec<u32>> {
                        Ok(x.to_dtype(DType::F32).to_vec::<f32>()?.into_iter().map(f32::to_bits).collect())
                    };
                    assert_eq!(bits(values)?, bits(x.gather(axis, &order))?, "{k} along {axis}");
                }
            }
        }
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn sorted_values_and_the_best_of_them() {
    let body = || -> Result<()> {
        let x = new([[3.0, f32::NAN, -0.0, 3.0], [0.0, -1.0, 2.0, 2.0]]);
        let bits = |x: Tensor| -> Result<Vec<u32>> { Ok(x.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect()) };
        let expect = |x: [f32; 8]| x.map(f32::to_bits).to_vec();
        assert_eq!(bits(x.sort(1, false))?, expect([-0.0, 3.0, 3.0, f32::NAN, -1.0, 0.0, 2.0, 2.0]));
        assert_eq!(bits(x.sort(-1, true))?, expect([f32::NAN, 3.0, 3.0, -0.0, 2.0, 2.0, 0.0, -1.0]));
        assert_eq!(x.argsort(1, true).to_vec::<i32>()?, [1, 0, 3, 2, 2, 3, 0, 1]);
        assert_eq!(bits(x.sort(0, false))?, expect([0.0, -1.0, -0.0, 2.0, 3.0, f32::NAN, 2.0, 3.0]));
        let (values, indices) = x.topk(2, 1, false);
        assert_eq!((values.to_vec::<f32>()?, indices.to_vec::<i32>()?), (vec![-0.0, 3.0, -1.0, 0.0], vec![2, 0, 1, 0]));
        assert_eq!(x.topk(0, 1, true).0.shape()[..], [2, 0]);
        // A permutation's inverse is its order.
        let order = new(Key::new(3).shuffled(1000).into_iter().map(|i| i as i32).collect::<Vec<_>>());
        assert_eq!(order.gather(0, &order.argsort(0, false)).to_vec::<i32>()?, (0..1000).collect::<Vec<_>>());
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn scans_in_maps_and_of_integers() {
    let body = || -> Result<()> {
        let x = new([[1, i32::MAX, 1], [2, 3, 4]]);
        assert_eq!(x.cumsum(1).to_vec::<i32>()?, [1, i32::MIN, i32::MIN + 1, 2, 5, 9]);
        assert_eq!(x.cumprod(0).to_vec::<i32>()?, [1, i32::MAX, 1, 2, i32::MAX.wrapping_mul(3), 4]);
        // What overflows on the way is no NaN where the state is 0.
        let (growth, input) = (new([3.0]).broadcast_to([1000]), Tensor::zeros([1000], &device()));
        assert!(input.linear_recurrence(&growth, 0).to_vec::<f32>()?.into_iter().all(|y| y == 0.0));
        let decay = new([[0.5], [2.0]]);
        let states = vmap(|x| x[1].linear_recurrence(&x[0], 0), &[decay, new([[1.0, 1.0, 1.0]; 2])])?;
        assert_eq!(states.to_vec::<f32>()?, [1.0, 1.5, 1.75, 1.0, 3.0, 7.0]);
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn different_values() {
    let body = || -> Result<()> {
        let x = new([[2.0, f32::NAN], [-0.0, 2.0], [0.0, f32::NAN]]);
        let unique = x.unique()?;
        let values = unique.values.to_vec::<f32>()?;
        assert!(values[..2] == [0.0, 2.0] && values[2].is_nan() && values.len() == 3);
        assert_eq!(unique.inverse.shape(), x.shape());
        assert_eq!(unique.inverse.to_vec::<i32>()?, [1, 2, 0, 1, 0, 2]);
        assert_eq!(unique.counts.to_vec::<i32>()?, [2, 2, 2]);
        let nothing = Tensor::zeros([0, 3], &device()).unique()?;
        assert_eq!(
            (nothing.values.shape()[0], nothing.counts.shape()[0], &nothing.inverse.shape()[..]),
            (0, 0, &[0, 3][..])
        );
        let flags = new([true, true]).unique()?;
        assert_eq!((flags.values.to_vec::<bool>()?, flags.counts.to_vec::<i32>()?), (vec![true], vec![2]));
        let many: Vec<i32> = (0..3000).map(|i| i * 7919 % 101).collect();
        let unique = new(many.clone()).unique()?;
        assert_eq!(unique.values.to_vec::<i32>()?, (0..101).collect::<Vec<_>>());
        assert_eq!(unique.values.gather(0, &unique.inverse).to_vec::<i32>()?, many);
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

#[test]
fn places_in_what_is_sorted() {
    let body = || -> Result<()> {
        for count in [0, 1, 2, 3, 5, 8, 100] {
            let sorted: Vec<f32> = (0..count).map(|i| (i / 2) as f32).collect();
            let values: Vec<f32> = (-3..120).map(|i| i as f32 / 2.0).chain([f32::NAN, f32::INFINITY]).collect();
            for after_equal in [false, true] {
                let comes_before = |x: f32, v: f32| x < v || (after_equal && x == v) || v.is_nan();
                let expected = values.iter().map(|&v| sorted.iter().filter(|&&x| comes_before(x, v)).count() as i32);
                let found = new(sorted.clone()).searchsorted(&new(values.clone()), after_equal).to_vec::<i32>()?;
                assert_eq!(found, expected.collect::<Vec<_>>(), "{count} elements on {}", device());
            }
        }
        let with_nan = new([1.0, f32::NAN]);
        let values = new([[0.0, f32::NAN], [1.0, 2.0]]);
        assert_eq!(with_nan.searchsorted(&values, false).to_vec::<i32>()?, [0, 1, 0, 1]);
        assert_eq!(with_nan.searchsorted(&values, true).to_vec::<i32>()?, [0, 2, 1, 1]);
        Ok(())
    };
    on_each_device(|| body().unwrap());
}

/// An explicit equation without dots, by a loop over all labels.
fn naive(equation: &str, operands: &[&Tensor]) -> Vec<f64> {
    let (inputs, output) = equation.split_once("->").unwrap();
    let inputs: Vec<&str> = inputs.split(',').collect();
    let mut extents = BTreeMap::new();
    for (labels, operand) in inputs.iter().zip(operands) {
        extents.extend(labels.chars().zip(operand.shape().iter().copied()));
    }
    // The result's labels first, so that its elements come in order.
    let mut labels: Vec<char> = output.chars().collect();
    labels.extend(extents.keys().filter(|label| !output.contains(**label)));
    let count = |labels: &[char]| labels.iter().map(|label| extents[label]).product::<usize>();
    let (kept, all) = (count(&labels[..output.len()]), count(&labels));
    let values: Vec<Vec<f32>> = operands.iter().map(|operand| operand.to_vec().unwrap()).collect();
    let mut sums = vec![0.0; kept];
    for at in 0..all {
        let mut rest = at;
        let mut index = BTreeMap::new();
        for label in labels.iter().rev() {
            index.insert(*label, rest % extents[label]);
            rest /= extents[label];
        }
        let element = |(labels, values): (&&str, &Vec<f32>)| {
            values[labels.chars().fold(0, |place, label| place * extents[&label] + index[&label])] as f64
        };
        sums[at / (all / kept)] += inputs.iter().zip(&values).map(element).product::<f64>();
    }
    sums
}

/// An equation that a loop understands.
fn check_einsum(equation: &str, plain: &str, operands: &[&Tensor]) {
    let got = einsum(equation, operands).to_vec::<f32>().unwrap_or_else(|error| panic!("{equation}: {error}"));
    let expected = naive(plain, operands);
    let near = |(got, expected): (&f32, &f64)| (*got as f64 - expected).abs() < 1e-5 * expected.abs().max(10.0);
    assert!(got.len() == expected.len() && got.iter().zip(&expected).all(near), "{equation}: {got:?}, {expected:?}");
}

#[test]
fn sums_of_products() {
    on_each_device(|| {
        let (a, b, c, d) = (mixed([2, 3]), mixed([3, 4]), mixed([4, 2]), mixed([5]));
        let (cube, square) = (mixed([3, 3, 3]), mixed([3, 3]));
        let cases: &[(&str, &str, &[&Tensor])] = &[
            ("ij", "ij->ij", &[&a]),
            ("ji", "ji->ij", &[&a]),
            ("ij->", "ij->", &[&a]),
            (" i j -> j ", "ij->j", &[&a]),
            ("ba", "ba->ab", &[&a]),
            ("bA", "bA->Ab", &[&a]),
            ("ii", "ii->", &[&square]),
            ("ii->i", "ii->i", &[&square]),
            ("iii->i", "iii->i", &[&cube]),
            ("iji->j", "iji->j", &[&cube]),
            ("ijj->i", "ijj->i", &[&cube]),
            ("ij,jk", "ij,jk->ik", &[&a, &b]),
            ("ij,jk->ki", "ij,jk->ki", &[&a, &b]),
            ("ij , jk->", "ij,jk->", &[&a, &b]),
            ("ij,ij->ij", "ij,ij->ij", &[&a, &a]),
            ("ij,ij->i", "ij,ij->i", &[&a, &a]),
            ("ij,k->kji", "ij,k->kji", &[&a, &d]),
            ("i,i", "i,i->", &[&d, &d]),
            ("i,j", "i,j->ij", &[&d, &d]),
            ("ij,jk,kl->il", "ij,jk,kl->il", &[&a, &b, &c]),
            ("ij,jk,ki", "ij,jk,ki->", &[&a, &b, &c]),
            ("ij,jk,km,m,i->", "ij,jk,km,m,i->", &[&a, &b, &c, &mixed([2]), &mixed([2])]),
            ("bij,bjk->bik", "bij,bjk->bik", &[&mixed([2, 3, 4]), &mixed([2, 4, 5])]),
            ("bi,bj,ijk->bk", "bi,bj,ijk->bk", &[&mixed([2, 3]), &mixed([2, 3]), &cube]),
            ("ii,ij->j", "ii,ij->j", &[&square, &square]),
            (",i->i", ",i->i", &[&mixed([]), &d]),
            ("...", "ij->ij", &[&a]),
            ("i...", "ij->ji", &[&a]),
            ("...j->j...", "ij->ji", &[&a]),
            ("...i,i...->i...", "ai,ia->ia", &[&a.t(), &a]),
            ("...ij,...jk", "bij,bjk->bik", &[&mixed([2, 3, 4]), &mixed([2, 4, 5])]),
            ("...ii->...i", "aii->ai", &[&cube]),
            ("i...->...", "ij->j", &[&a]),
        ];
        for (equation, plain, operands) in cases {
            check_einsum(equation, plain, operands);
        }
        // Dots broadcast.
        let (x, y) = (mixed([2, 1, 3]), mixed([4, 3]));
        let expected = (&x * &y).sum(-1).to_vec::<f32>().unwrap();
        let got = einsum("...i,...i->...", &[&x, &y]);
        assert_eq!(got.shape()[..], [2, 4]);
        bench::compare("dots that broadcast", 0, from_ref(&got), |x| x[0].clone());
        let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
        assert!(got.to_vec::<f32>().unwrap().iter().zip(&expected).all(near));
        assert_eq!(einsum("...i->i...", &[&Tensor::ones([2, 1, 3], &device())]).shape()[..], [3, 2, 1]);
        // Integers, nothing, and a map.
        assert_eq!(einsum("i,i", &[&new([1, 2]), &new([3, 4])]).item::<i32>().unwrap(), 11);
        let none = Tensor::zeros([0, 3], &device());
        assert_eq!(einsum("ij,kj->", &[&none, &none]).item::<f32>().unwrap(), 0.0);
        assert_eq!(einsum("ii->i", &[&Tensor::zeros([0, 0], &device())]).shape()[..], [0]);
        let mapped = vmap(|x| einsum("ij,jk->ki", &[&x[0], &b]), &[mixed([5, 2, 3])]).unwrap();
        assert_eq!(mapped.shape()[..], [5, 4, 2]);
    });
}

/// A chain is multiplied from its short end, and a diagonal is no array of its own.
#[test]
fn sums_of_products_do_little_work() -> Result<()> {
    let (a, b, v) = (mixed([40, 50]), mixed([50, 60]), mixed([60]));
    let graph = trace(&[einsum("ij,jk,k->i", &[&a, &b, &v])], &[])?.graph;
    assert!(graph.nodes().iter().all(|node| node.ty.shape.numel() <= 50 * 60), "{graph:?}");
    let square = mixed([30, 30]);
    let graph = trace(&[einsum("ii", &[&square])], &[])?.graph;
    let plan = gradus::ir::plan(&graph, &gradus::ir::Target::default());
    assert_eq!(plan.kernels.len(), 1, "{plan}");
    assert_eq!(graph.nodes().iter().filter(|node| matches!(node.op, Op::Contract { .. })).count(), 0);
    let half = einsum("ij,jk->ik", &[&a.to_dtype(DType::I32), &b.to_dtype(DType::I32)]);
    assert_eq!(half.dtype(), DType::I32);
    Ok(())
}
