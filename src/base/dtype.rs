//! Number types: their sizes and their names in each file format, in one table.

use std::fmt;

/// The type of stored numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit IEEE floating point.
    F32,
    /// 16-bit IEEE floating point.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// 64-bit IEEE floating point.
    F64,
    /// Truth values, a byte each (causal masks).
    Bool,
    /// Bytes (causal masks).
    U8,
    /// 8-bit integers.
    I8,
    /// 16-bit integers.
    I16,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// 32 numbers as 4-bit integers with one f16 scale (GGUF).
    Q4_0,
    /// 32 numbers as 4-bit integers with an f16 scale and minimum (GGUF).
    Q4_1,
    /// 32 numbers as 5-bit integers with one f16 scale (GGUF).
    Q5_0,
    /// 32 numbers as 5-bit integers with an f16 scale and minimum (GGUF).
    Q5_1,
    /// 32 numbers as 8-bit integers with one f16 scale (GGUF).
    Q8_0,
    /// 256 numbers as 2-bit integers in 16 scaled and shifted groups (GGUF).
    Q2K,
    /// 256 numbers as 3-bit integers in 16 scaled groups (GGUF).
    Q3K,
    /// 256 numbers as 4-bit integers in 8 scaled and shifted groups (GGUF).
    Q4K,
    /// 256 numbers as 5-bit integers in 8 scaled and shifted groups (GGUF).
    Q5K,
    /// 256 numbers as 6-bit integers in 16 scaled groups (GGUF).
    Q6K,
}

/// What we know about a type.
struct Facts {
    dtype: DType,
    /// Its name in files: safetensors' for plain numbers, ggml's for quantised ones.
    name: &'static str,
    /// PyTorch's storage class.
    torch: Option<&'static str>,
    /// ggml's code (`enum ggml_type`).
    ggml: Option<u32>,
    /// llama.cpp's code for a file whose matrices are mostly of this type (`enum llama_ftype`).
    llama_file: Option<u32>,
    /// Numbers in a block, and bytes of a block.
    block: (usize, usize),
}

/// Table entry of a plain type.
const fn plain(dtype: DType, name: &'static str, torch: &'static str, ggml: Option<u32>, size: usize) -> Facts {
    Facts { dtype, name, torch: Some(torch), ggml, llama_file: None, block: (1, size) }
}

const fn quantized(dtype: DType, name: &'static str, ggml: u32, block: (usize, usize)) -> Facts {
    Facts { dtype, name, torch: None, ggml: Some(ggml), llama_file: None, block }
}

const fn in_llama_files(code: u32, facts: Facts) -> Facts {
    Facts { llama_file: Some(code), ..facts }
}

/// In the order of the variants.
const TABLE: [Facts; 20] = [
    in_llama_files(0, plain(DType::F32, "F32", "FloatStorage", Some(0), 4)),
    in_llama_files(1, plain(DType::F16, "F16", "HalfStorage", Some(1), 2)),
    in_llama_files(32, plain(DType::BF16, "BF16", "BFloat16Storage", Some(30), 2)),
    plain(DType::F64, "F64", "DoubleStorage", Some(28), 8),
    plain(DType::Bool, "BOOL", "BoolStorage", None, 1),
    plain(DType::U8, "U8", "ByteStorage", None, 1),
    plain(DType::I8, "I8", "CharStorage", Some(24), 1),
    plain(DType::I16, "I16", "ShortStorage", Some(25), 2),
    plain(DType::I32, "I32", "IntStorage", Some(26), 4),
    plain(DType::I64, "I64", "LongStorage", Some(27), 8),
    quantized(DType::Q4_0, "Q4_0", 2, (32, 18)),
    quantized(DType::Q4_1, "Q4_1", 3, (32, 20)),
    quantized(DType::Q5_0, "Q5_0", 6, (32, 22)),
    quantized(DType::Q5_1, "Q5_1", 7, (32, 24)),
    in_llama_files(7, quantized(DType::Q8_0, "Q8_0", 8, (32, 34))),
    quantized(DType::Q2K, "Q2_K", 10, (256, 84)),
    quantized(DType::Q3K, "Q3_K", 11, (256, 110)),
    in_llama_files(14, quantized(DType::Q4K, "Q4_K", 12, (256, 144))),
    quantized(DType::Q5K, "Q5_K", 13, (256, 176)),
    in_llama_files(18, quantized(DType::Q6K, "Q6_K", 14, (256, 210))),
];

impl DType {
    const fn facts(self) -> &'static Facts {
        &TABLE[self as usize]
    }

    fn find(matches: impl Fn(&Facts) -> bool) -> Option<Self> {
        TABLE.iter().find(|facts| matches(facts)).map(|facts| facts.dtype)
    }

    /// The name that files use: safetensors' for plain numbers, ggml's for quantised ones.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The type that files call `name`, ignoring case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::find(|facts| facts.name.eq_ignore_ascii_case(name))
    }

    /// The type of the numbers in PyTorch's storage class `name`, such as `FloatStorage`.
    #[must_use]
    pub(crate) fn of_torch_storage(name: &str) -> Option<Self> {
        Self::find(|facts| facts.torch == Some(name))
    }

    /// The type with ggml's code `code`.
    #[must_use]
    pub(crate) fn of_ggml(code: u32) -> Option<Self> {
        Self::find(|facts| facts.ggml == Some(code))
    }

    /// ggml's code; none for truth values and unsigned bytes, which ggml does not have.
    #[must_use]
    pub(crate) const fn ggml_code(self) -> Option<u32> {
        self.facts().ggml
    }

    /// llama.cpp's `general.file_type` for a file whose matrices have this type.
    #[must_use]
    pub(crate) const fn llama_file_type(self) -> Option<u32> {
        self.facts().llama_file
    }

    /// Numbers in a block, the unit of storage: 1 unless quantised. The rows of a tensor are whole blocks.
    #[must_use]
    pub const fn block_len(self) -> usize {
        self.facts().block.0
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        self.facts().block.1
    }

    /// Whether blocks of numbers share scales.
    #[must_use]
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes of a tensor whose rows (along the last axis of `shape`, as stored) are whole blocks. `None` if they are
    /// not whole blocks, or if the size overflows `usize`.
    #[must_use]
    pub fn byte_len(self, shape: &[usize]) -> Option<usize> {
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(self.block_len()) {
            return None;
        }
        let numbers = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))?;
        (numbers / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The floating-point types that kernels compute with: weights, cached keys and values, and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// [`DType::F32`].
    F32,
    /// [`DType::F16`].
    F16,
    /// [`DType::BF16`].
    BF16,
}

impl FloatType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::BF16];

    /// The same type as a [`DType`].
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }

    /// The kernels' type for numbers stored as `dtype`.
    #[must_use]
    pub fn of(dtype: DType) -> Option<Self> {
        Self::ALL.into_iter().find(|float| float.dtype() == dtype)
    }

    /// Its name in lower case, as PyTorch, Rust and candle write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }

    /// candle's type.
    pub(crate) const fn candle(self) -> candle_core::DType {
        match self {
            Self::F32 => candle_core::DType::F32,
            Self::F16 => candle_core::DType::F16,
            Self::BF16 => candle_core::DType::BF16,
        }
    }

    /// Bytes of one number.
    #[must_use]
    pub const fn size(self) -> usize {
        self.dtype().block_bytes()
    }
}

/// The quantised formats that kernels compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantizedType {
    /// [`DType::Q8_0`]: 8.5 bits a weight.
    Q8_0,
    /// [`DType::Q6K`]: 6.56 bits a weight.
    Q6K,
    /// [`DType::Q5K`]: 5.5 bits a weight.
    Q5K,
    /// [`DType::Q4K`]: 4.5 bits a weight.
    Q4K,
}

impl QuantizedType {
    /// All of them, most exact first.
    pub const ALL: [Self; 4] = [Self::Q8_0, Self::Q6K, Self::Q5K, Self::Q4K];

    /// The same type as a [`DType`].
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            Self::Q8_0 => DType::Q8_0,
            Self::Q6K => DType::Q6K,
            Self::Q5K => DType::Q5K,
            Self::Q4K => DType::Q4K,
        }
    }

    /// The kernels' format for numbers stored as `dtype`.
    #[must_use]
    pub fn of(dtype: DType) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.dtype() == dtype)
    }

    /// The type to quantise a matrix to when its rows have `inputs` numbers: this one if the rows are whole blocks of
    /// it, else `Q8_0` if they are whole blocks of that, else `F16`. As in llama.cpp.
    #[must_use]
    pub fn fitting(self, inputs: usize) -> DType {
        let fits = |dtype: &DType| inputs.is_multiple_of(dtype.block_len());
        [self.dtype(), DType::Q8_0].into_iter().find(fits).unwrap_or(DType::F16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_types() {
        for (place, facts) in TABLE.iter().enumerate() {
            assert_eq!(facts.dtype as usize, place, "{}", facts.name);
        }
    }

    #[test]
    fn names_and_codes_lead_back() {
        for facts in &TABLE {
            assert_eq!(DType::named(&facts.name.to_lowercase()), Some(facts.dtype));
            assert_eq!(facts.torch.and_then(DType::of_torch_storage), facts.torch.map(|_| facts.dtype));
            assert_eq!(facts.ggml.and_then(DType::of_ggml), facts.ggml.map(|_| facts.dtype));
        }
    }

    /// Checked against candle's blocks and the safetensors crate's types.
    #[test]
    fn sizes_are_those_of_the_libraries() {
        for facts in TABLE.iter().filter(|facts| facts.torch.is_some()) {
            let theirs: safetensors::Dtype = serde_json::from_value(facts.name.into()).unwrap();
            assert_eq!(theirs.bitsize(), 8 * facts.block.1, "{}", facts.name);
        }
        use candle_core::quantized::GgmlDType;
        for (dtype, theirs) in
            [(DType::Q4_0, GgmlDType::Q4_0), (DType::Q5_1, GgmlDType::Q5_1), (DType::Q2K, GgmlDType::Q2K)]
        {
            assert_eq!((dtype.block_len(), dtype.block_bytes()), (theirs.block_size(), theirs.type_size()));
        }
    }
}
