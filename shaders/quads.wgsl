// Pieces of a matrix product's operands. Vector: four elements.

/// A part of an address: an offset, and whether there is an element.
alias Part = vec2<u32>;
alias Parts = array<Part, 4>;

/// Four lines of an operand at four places, or the other way round.
alias Quad = array<Vector, 4>;

fn transposed(q: Quad) -> Quad {
    return Quad(
        Vector(q[0].x, q[1].x, q[2].x, q[3].x),
        Vector(q[0].y, q[1].y, q[2].y, q[3].y),
        Vector(q[0].z, q[1].z, q[2].z, q[3].z),
        Vector(q[0].w, q[1].w, q[2].w, q[3].w),
    );
}

/// Four indices from this one on, as far as there are so many.
fn four_from(first: u32, count: u32) -> vec4<u32> {
    return min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(count - 1u));
}
