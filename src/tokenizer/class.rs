//! transformers' tokenizer classes: what each makes of the files of a byte-level BPE.
//!
//! Reference: transformers 5.23.0, `AutoTokenizer.from_pretrained` and the classes in `tokenization_*.py`.

use super::END_OF_TEXT;

/// transformers' class for GPT-2.
const GPT2: &str = "GPT2Tokenizer";

/// The class that takes a `tokenizer.json` as it is.
pub(super) const PLAIN: &str = "PreTrainedTokenizerFast";

/// Classes that make the same of vocabulary and merges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Family {
    /// Take a `tokenizer.json` as it is.
    #[default]
    Plain,
    /// Unknown to transformers: take a `tokenizer.json` as it is, and no other files.
    Unknown,
    /// Take vocabulary, merges, and what is added around a text from a `tokenizer.json`, the rest from the small files.
    Gpt2,
    /// As GPT-2's, with `<s>` and `</s>` around every text.
    Roberta,
    /// As GPT-2's, with `[CLS]` and `[SEP]` around every text.
    Deberta,
    /// As GPT-2's, after normalization (NFC).
    GptNeoX,
    /// With words of their own.
    Qwen2,
    /// Everything else.
    Other,
}

impl Family {
    /// The family of a class.
    pub fn of_class(name: &str) -> Self {
        match name.strip_suffix("Fast").unwrap_or(name) {
            GPT2 | "CodeGenTokenizer" => Self::Gpt2,
            "RobertaTokenizer" | "BartTokenizer" | "LEDTokenizer" | "LongformerTokenizer" | "MvpTokenizer" => {
                Self::Roberta
            }
            "DebertaTokenizer" => Self::Deberta,
            "GPTNeoXTokenizer" => Self::GptNeoX,
            "Qwen2Tokenizer" => Self::Qwen2,
            "PreTrainedTokenizer" | "TokenizersBackend" | "PythonBackend" | "BloomTokenizer" => Self::Plain,
            other if OTHERS.contains(&other) => Self::Other,
            _ => Self::Unknown,
        }
    }

    /// The class that transformers takes for a model of this type whose files name none.
    pub fn class_of_model(model_type: &str) -> Option<&'static str> {
        Some(match model_type {
            "gpt2" | "gpt_neo" | "gptj" | "codegen" | "opt" | "phi" | "starcoder2" => GPT2,
            "roberta" | "roberta-prelayernorm" | "bart" | "longformer" | "led" | "mvp" => "RobertaTokenizer",
            "deberta" => "DebertaTokenizer",
            "gpt_neox" | "mamba" | "mamba2" | "mpt" | "olmo" | "olmoe" | "rwkv" => "GPTNeoXTokenizer",
            "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" => "Qwen2Tokenizer",
            "blenderbot" => "BlenderbotTokenizer",
            "whisper" => "WhisperTokenizer",
            "clip" => "CLIPTokenizer",
            _ => return None,
        })
    }

    /// Whether only vocabulary and merges of a `tokenizer.json` matter: the class makes the rest.
    pub fn rebuilds(self) -> bool {
        matches!(self, Self::Gpt2 | Self::Roberta | Self::Deberta)
    }

    /// Whether every text gets `cls_token` in front and `sep_token` at its end.
    pub fn surrounds(self) -> bool {
        matches!(self, Self::Roberta | Self::Deberta)
    }

    /// The token with this role where no file names one.
    pub fn token(self, role: &str) -> Option<&'static str> {
        Some(match (self, role) {
            (Self::Gpt2 | Self::GptNeoX, "bos_token" | "eos_token" | "unk_token") => END_OF_TEXT,
            (Self::Qwen2, "eos_token" | "unk_token" | "pad_token") => END_OF_TEXT,
            (Self::GptNeoX, "pad_token") => "<|padding|>",
            (Self::Roberta, "bos_token" | "cls_token") => "<s>",
            (Self::Roberta, "eos_token" | "sep_token") => "</s>",
            (Self::Roberta, "unk_token") => "<unk>",
            (Self::Roberta, "pad_token") => "<pad>",
            (Self::Roberta, "mask_token") => "<mask>",
            (Self::Deberta, "bos_token" | "cls_token") => "[CLS]",
            (Self::Deberta, "eos_token" | "sep_token") => "[SEP]",
            (Self::Deberta, "unk_token") => "[UNK]",
            (Self::Deberta, "pad_token") => "[PAD]",
            (Self::Deberta, "mask_token") => "[MASK]",
            _ => return None,
        })
    }

    /// The class that makes the same, for files that name none.
    pub fn class(self) -> &'static str {
        match self {
            Self::Gpt2 => GPT2,
            _ => PLAIN,
        }
    }
}

/// The other classes that transformers knows, without `Fast`.
const OTHERS: [&str; 91] = [
    "AlbertTokenizer",
    "BarthezTokenizer",
    "BartphoTokenizer",
    "BertGenerationTokenizer",
    "BertJapaneseTokenizer",
    "BertTokenizer",
    "BertweetTokenizer",
    "BigBirdTokenizer",
    "BioGptTokenizer",
    "BlenderbotSmallTokenizer",
    "BlenderbotTokenizer",
    "ByT5Tokenizer",
    "CLIPTokenizer",
    "CTRLTokenizer",
    "CamembertTokenizer",
    "CanineTokenizer",
    "ClvpTokenizer",
    "CodeLlamaTokenizer",
    "CohereTokenizer",
    "ConvBertTokenizer",
    "CpmAntTokenizer",
    "CpmTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "DPRReaderTokenizer",
    "DebertaV2Tokenizer",
    "DiaTokenizer",
    "DistilBertTokenizer",
    "EsmTokenizer",
    "EsmcTokenizer",
    "FNetTokenizer",
    "FSMTTokenizer",
    "FastSpeech2ConformerTokenizer",
    "FlaubertTokenizer",
    "FunnelTokenizer",
    "GPTNeoXJapaneseTokenizer",
    "GPTSw3Tokenizer",
    "GemmaTokenizer",
    "HerbertTokenizer",
    "LasrTokenizer",
    "LayoutLMv2Tokenizer",
    "LayoutLMv3Tokenizer",
    "LayoutXLMTokenizer",
    "LukeTokenizer",
    "LxmertTokenizer",
    "M2M100Tokenizer",
    "MBart50Tokenizer",
    "MBartTokenizer",
    "MLukeTokenizer",
    "MPNetTokenizer",
    "MarianTokenizer",
    "MarkupLMTokenizer",
    "MgpstrTokenizer",
    "MobileBertTokenizer",
    "MyT5Tokenizer",
    "NllbTokenizer",
    "NougatTokenizer",
    "OpenAIGPTTokenizer",
    "PLBartTokenizer",
    "ParakeetTokenizer",
    "PegasusTokenizer",
    "PerceiverTokenizer",
    "PhobertTokenizer",
    "Pop2PianoTokenizer",
    "ProphetNetTokenizer",
    "Qwen3_5Tokenizer",
    "RagTokenizer",
    "ReformerTokenizer",
    "RemBertTokenizer",
    "RoCBertTokenizer",
    "RoFormerTokenizer",
    "SeamlessM4TTokenizer",
    "Siglip2Tokenizer",
    "SiglipTokenizer",
    "Speech2TextTokenizer",
    "SpeechT5Tokenizer",
    "SplinterTokenizer",
    "SqueezeBertTokenizer",
    "T5Tokenizer",
    "TapasTokenizer",
    "Tipsv2Tokenizer",
    "UdopTokenizer",
    "VideoPrismTokenizer",
    "VitsTokenizer",
    "Wav2Vec2CTCTokenizer",
    "Wav2Vec2PhonemeCTCTokenizer",
    "WhisperTokenizer",
    "XGLMTokenizer",
    "XLMRobertaTokenizer",
    "XLMTokenizer",
    "XLNetTokenizer",
];
