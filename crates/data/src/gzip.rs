//! Files that may be compressed.

use flate2::bufread::MultiGzDecoder;
use std::io::{BufReader, Cursor, Read, Result};

pub(crate) const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What is read, decompressed if it starts as gzip does.
pub(crate) fn unpacked<'a>(reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut packed = BufReader::new(reader);
    // A reader may hand out a single byte at a time, so the magic bytes are read and put back.
    let mut magic = Vec::with_capacity(MAGIC.len());
    packed.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    let is_gzip = magic == MAGIC;
    let whole = Cursor::new(magic).chain(packed);
    Ok(if is_gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}
