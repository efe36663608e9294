// A tile of 2,048 keys, with the place that each had, which a workgroup of 256 puts into the order of four bits at a time. An
// invocation looks at eight neighbours, and counts in counters of its own; all counters summed up, digit after digit, tell
// where its keys go. Keys with equal bits keep their order.

const SORTERS = 256u;
const SORTED = 2048u;

// See `spread`.
var<workgroup> tile_keys: array<u32, 2112>;
var<workgroup> tile_places: array<u32, 2112>;
// Two counts in each word: of digits below 8 by digit and invocation, and above of the digits from 8 on.
var<workgroup> counters: array<u32, 2112>;
var<workgroup> sums: array<u32, 512>;

// Where word `i` of an array is: rows of 32 are one bank apart, so that every eighth word lies in another bank.
fn spread(i: u32) -> u32 {
    return i + i / 32u;
}

fn counter_of(digit: u32, lane: u32) -> u32 {
    return spread(digit % 8u * SORTERS + lane);
}

// Counts a digit; gives how many the invocation has counted before.
fn count_one(digit: u32, lane: u32) -> u32 {
    let at = counter_of(digit, lane);
    let above = 16u * (digit / 8u);
    let counter = counters[at];
    counters[at] = counter + (1u << above);
    return (counter >> above) & 0xffffu;
}

fn count_four(digits: vec4<u32>, lane: u32) -> vec4<u32> {
    let x = count_one(digits.x, lane);
    let y = count_one(digits.y, lane);
    let z = count_one(digits.z, lane);
    return vec4(x, y, z, count_one(digits.w, lane));
}

// Where the invocation's first key with this digit goes, after its counters were summed up; `lower` keys have digits below 8.
fn first_of(digit: u32, lane: u32, lower: u32) -> u32 {
    let sum = (counters[counter_of(digit, lane)] >> (16u * (digit / 8u))) & 0xffffu;
    return sum + select(0u, lower, digit >= 8u);
}

fn first_of_four(digits: vec4<u32>, lane: u32, lower: u32) -> vec4<u32> {
    return vec4(
        first_of(digits.x, lane, lower), first_of(digits.y, lane, lower),
        first_of(digits.z, lane, lower), first_of(digits.w, lane, lower),
    );
}

// The sum of the values of all invocations before this one; that of all is `sums[SORTERS - 1]`, from the next barrier on.
fn sum_before(value: u32, lane: u32) -> u32 {
    var sum = value;
    var half = 0u;
    sums[lane] = value;
    for (var apart = 1u; apart < SORTERS; apart *= 2u) {
        workgroupBarrier();
        sum += select(0u, sums[half + lane - min(apart, lane)], lane >= apart);
        half = SORTERS - half;
        sums[half + lane] = sum;
    }
    return sum - value;
}

fn four_keys(first: u32) -> vec4<u32> {
    let at = spread(first);
    return vec4(tile_keys[at], tile_keys[at + 1u], tile_keys[at + 2u], tile_keys[at + 3u]);
}

fn four_places(first: u32) -> vec4<u32> {
    let at = spread(first);
    return vec4(tile_places[at], tile_places[at + 1u], tile_places[at + 2u], tile_places[at + 3u]);
}

fn put_one(to: u32, key: u32, place: u32) {
    tile_keys[spread(to)] = key;
    tile_places[spread(to)] = place;
}

fn put_four(to: vec4<u32>, keys: vec4<u32>, places: vec4<u32>) {
    put_one(to.x, keys.x, places.x);
    put_one(to.y, keys.y, places.y);
    put_one(to.z, keys.z, places.z);
    put_one(to.w, keys.w, places.w);
}

// Puts the tile, which is there after a barrier, into the order of four bits, those from `shift` on.
fn sort_tile(shift: u32, lane: u32) {
    let first = 8u * lane;
    let keys = array(four_keys(first), four_keys(first + 4u));
    let places = array(four_places(first), four_places(first + 4u));
    for (var digit = 0u; digit < 8u; digit++) {
        counters[counter_of(digit, lane)] = 0u;
    }
    let digits = array((keys[0] >> vec4(shift)) & vec4(15u), (keys[1] >> vec4(shift)) & vec4(15u));
    let earlier = count_four(digits[0], lane);
    let later = count_four(digits[1], lane);
    workgroupBarrier();
    let at = spread(first);
    var counted = 0u;
    for (var i = 0u; i < 8u; i++) {
        counted += counters[at + i];
    }
    var sum = sum_before(counted, lane);
    for (var i = 0u; i < 8u; i++) {
        let counter = counters[at + i];
        counters[at + i] = sum;
        sum += counter;
    }
    workgroupBarrier();
    let lower = sums[SORTERS - 1u] & 0xffffu;
    put_four(first_of_four(digits[0], lane, lower) + earlier, keys[0], places[0]);
    put_four(first_of_four(digits[1], lane, lower) + later, keys[1], places[1]);
    workgroupBarrier();
}
