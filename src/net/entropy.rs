//! Random bytes for ids and secrets, from the operating system's generator.

/// Sixteen random bytes.
pub fn sixteen() -> [u8; 16] {
    bytes()
}

/// Thirty-two random bytes.
pub fn thirty_two() -> [u8; 32] {
    bytes()
}

/// 32 random bits in hexadecimal, for names that need not be secret.
pub fn short_id() -> String {
    format!("{:08x}", u32::from_be_bytes(bytes()))
}

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the random generator of this process works once it was seeded");
    bytes
}
