//! The frame around each record of an event file: its length, and checksums.

/// The CRC-32C (Castagnoli) of some bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    /// The polynomial 0x1EDC6F41, reflected.
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut crc, mut bit) = (byte as u32, 0);
            while bit < 8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(byte)) & 0xFF) as usize])
}

/// The checksum as TFRecord files hold it: rotated and shifted, so that records may hold checksums themselves.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// A record in its frame.
pub(super) fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked(data).to_le_bytes());
    record
}

/// A record's data, and the bytes after the record.
pub(super) type Unframed<'a> = (&'a [u8], &'a [u8]);

/// The first record of some bytes, and what follows it. `None` if they end before it does.
///
/// # Errors
/// What is wrong with it.
pub(super) fn unframe(bytes: &[u8]) -> Result<Option<Unframed<'_>>, &'static str> {
    let Some((head, rest)) = bytes.split_at_checked(12) else {
        return Ok(None);
    };
    let (length, checksum) = head.split_at(8);
    if masked(length).to_le_bytes() != checksum {
        return Err("the checksum of a length is wrong");
    }
    let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
    let end = usize::try_from(length).ok().and_then(|length| length.checked_add(4));
    let Some((record, rest)) = end.and_then(|end| rest.split_at_checked(end)) else {
        return Ok(None);
    };
    let (data, checksum) = record.split_at(record.len() - 4);
    if masked(data).to_le_bytes() != checksum {
        return Err("the checksum of a record is wrong");
    }
    Ok(Some((data, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums() {
        // RFC 3720, appendix B.4, and the usual check value.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&std::array::from_fn::<u8, 32, _>(|i| i as u8)), 0x46DD_794E);
    }

    #[test]
    fn frames_are_opened_or_refused() {
        let two = [frame(b"first"), frame(b"")].concat();
        let (first, rest) = unframe(&two).unwrap().unwrap();
        assert_eq!((first, unframe(rest)), (&b"first"[..], Ok(Some((&b""[..], &b""[..])))));
        for end in 0..21 {
            assert_eq!(unframe(&two[..end]), Ok(None), "{end} bytes");
        }
        for place in 0..21 {
            let mut broken = two.clone();
            broken[place] ^= 1;
            assert!(unframe(&broken).is_err(), "byte {place}");
        }
        let huge = [u64::MAX.to_le_bytes().to_vec(), masked(&u64::MAX.to_le_bytes()).to_le_bytes().to_vec()].concat();
        assert_eq!(unframe(&huge), Ok(None));
    }
}
