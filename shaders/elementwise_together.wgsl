// Several element-wise kernels of one structure, each on arrays of its own, in one launch: each invocation computes one
// element, or a vector of four, of every output of one of them.
//
// Hooks: `member_of(group)`, to whose work a workgroup belongs; `element(member, i)`, which loads, computes and stores.

struct Member {
    number: u32,
    // Its first workgroup, and how many invocations have work.
    begin: u32,
    size: u32,
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup_index(id);
    let member = member_of(group);
    let i = (group - member.begin) * WORKGROUP + lane;
    if i < member.size {
        element(member.number, i);
    }
}
