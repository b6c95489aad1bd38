//! The flags of `gpt2 serve`.

use clap::Args;

use super::{ModelArgs, number};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 serve --model demo
  GPT2_API_KEY=secret gpt2 serve --model gpt2 --host 0.0.0.0 --port 8000
  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\
    -d '{\"prompt\": \"Once upon a\", \"max_tokens\": 5, \"temperature\": 0}'

The page at / is a playground; /v1/completions is OpenAI's, for its clients: base URL http://127.0.0.1:8080/v1.")]
pub struct ServeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Address to listen on: 127.0.0.1 serves this machine only, 0.0.0.0 every network
    #[arg(help_heading = "Server", long, value_name = "HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 for any that is free
    #[arg(help_heading = "Server", long, value_name = "N", default_value_t = 8080, value_parser = number::whole::<u16>(0..=65535))]
    pub port: u16,
    /// What clients must send as `Authorization: Bearer K` [env: GPT2_API_KEY]
    ///
    /// Other users of this machine can read a command line, so the environment is the better place.
    #[arg(help_heading = "Server", long, value_name = "K", value_parser = key)]
    pub api_key: Option<String>,
    /// Prompts to continue at the same time
    #[arg(help_heading = "Server", long, value_name = "N", default_value_t = 32, value_parser = number::whole::<usize>(1..=4096))]
    pub batch_size: usize,
    /// Prompts that may run or wait; more are refused with status 429
    #[arg(help_heading = "Server", long, value_name = "N", default_value_t = 4096, value_parser = number::whole::<usize>(1..=1_000_000))]
    pub queue: usize,
    /// Seconds that a request may take, waiting included
    #[arg(help_heading = "Server", long, value_name = "SECONDS", default_value_t = 600, value_parser = number::whole::<u64>(1..=1_000_000))]
    pub timeout: u64,
}

impl ServeArgs {
    /// What clients must send: the flag's value, else the environment's, of which an empty one is none.
    ///
    /// # Errors
    /// [`gpt2::Error::Usage`] if no client could send it.
    pub fn api_key(&self) -> Result<Option<String>, gpt2::Error> {
        let by_environment = || std::env::var("GPT2_API_KEY").ok().filter(|key| !key.is_empty());
        let given = self.api_key.clone().or_else(by_environment);
        given.map(|given| key(&given)).transpose().map_err(|fault| gpt2::Error::Usage(format!("the key {fault}")))
    }
}

/// A key, which clients send in a header.
fn key(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.trim() == text && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("takes at least a letter, and no line breaks or spaces at its ends".to_owned()),
    }
}
