//! Random orthogonal matrices.

use gradus_tensor::{DType, Data, Device, Key, Placement, Shape, Tensor};

/// A weight whose rows or columns, whichever are fewer, are orthogonal and of length `gain`.
#[track_caller]
pub(super) fn tensor(shape: Shape, key: Key, on: Placement, gain: f64) -> Tensor {
    let dtype = on.dtype.unwrap_or(DType::F32);
    let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
    let (few, long) = (rows.min(columns), rows.max(columns));
    // f64 is on the CPU; the bits of random numbers are the same on every device.
    let normal = Tensor::randn([few, long], key, (&Device::cpu(), DType::F64));
    let mut vectors = match normal.to_data() {
        Ok(Data::F64(vectors)) => vectors,
        Ok(_) => Vec::new(),
        Err(error) => return Tensor::build(&on.device, || Err(error)),
    };
    orthonormalise(&mut vectors, long);
    vectors.iter_mut().for_each(|x| *x *= gain);
    let matrix = Tensor::from_vec(vectors, [few, long], (&Device::cpu(), DType::F64));
    let matrix = if rows <= columns { matrix } else { matrix.t() };
    matrix.reshape(shape).to_dtype(dtype).to_device(&on.device)
}

/// Makes the vectors of `length` numbers, which lie one after the other, orthogonal and of length 1, by the modified method of Gram
/// and Schmidt, twice: which leaves them orthogonal to the last digits (Giraud et al. 2005). Of normal vectors it makes each set of
/// such vectors equally likely: their lengths are positive, as a QR decomposition needs for that (Mezzadri 2007).
fn orthonormalise(vectors: &mut [f64], length: usize) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for i in 0..vectors.len() / length.max(1) {
        let (before, rest) = vectors.split_at_mut(i * length);
        let vector = &mut rest[..length];
        for _ in 0..2 {
            for other in before.chunks_exact(length) {
                let along = dot(vector, other);
                vector.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
            let norm = dot(vector, vector).sqrt();
            vector.iter_mut().for_each(|x| *x /= norm);
        }
    }
}
