//! The job's key-value store, with values that only the job's own processes can write.
//!
//! c10d's store asks nobody who they are. Where the environment gives the job a token, keys lie below a prefix that is
//! derived from it, and each value carries a message authentication code (HMAC-SHA256) over its key: whoever reaches
//! the port without knowing the token can disturb the job, but cannot have a rank believe anything. What gloo and NCCL
//! write into the same store (their addresses) is c10d's own and not covered.

use crate::error::{Result, failed};
use crate::torch_ext::dist::{self, Keeper};
use hmac::{Hmac, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::Sha256;
use std::fmt;
use std::time::Duration;

/// The environment variable of a job's token, the same for all of its processes.
pub const TOKEN: &str = "SENET_JOB_TOKEN";

/// Bytes of a message authentication code.
const CODE: usize = 32;

/// A secret that the processes of a job share.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The one that an environment gives.
    pub fn given(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// 128 random bits from the system.
    ///
    /// # Errors
    /// When the system has none.
    pub fn random() -> Result<Self> {
        let mut bytes = [0u8; 16];
        OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|reason| failed(format!("the system gives no random numbers: {reason}")))?;
        Ok(Self(format!("{:032x}", u128::from_le_bytes(bytes))))
    }

    /// As a value of [`TOKEN`].
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Starts a code of something `about`, with lengths that keep its parts apart.
    fn code(&self, about: &str, parts: [&[u8]; 2]) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).expect("any length is a key");
        for part in [about.as_bytes(), parts[0], parts[1]] {
            code.update(&(part.len() as u64).to_le_bytes());
            code.update(part);
        }
        code
    }

    /// A name for the job's keys that does not give the token away: keys can be listed.
    fn prefix(&self) -> String {
        format!("{:.32}", format!("{:x}", self.code("prefix", [b"", b""]).finalize().into_bytes()))
    }
}

/// A connection to the job's store.
#[derive(Debug)]
pub struct Store {
    connection: dist::Store,
    prefix: String,
    token: Option<Token>,
}

impl Store {
    /// Connects, trying for as long as `timeout`, which limits later calls as well. Keys begin with `prefix`, behind what
    /// the `token` adds.
    ///
    /// # Errors
    /// When the port is in use, or nobody answers in time.
    pub fn open(
        host: &str,
        port: u16,
        keeper: Keeper,
        timeout: Duration,
        prefix: &str,
        token: Option<&Token>,
    ) -> Result<Self> {
        let prefix = token.map_or_else(|| prefix.to_owned(), |token| format!("{prefix}{}/", token.prefix()));
        let connection = dist::Store::open(host, port, keeper, timeout, &prefix)?;
        Ok(Self { connection, prefix, token: token.cloned() })
    }

    /// For groups of c10d, whose keys are their own.
    pub fn connection(&self) -> &dist::Store {
        &self.connection
    }

    /// Sets a key.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        match &self.token {
            None => self.connection.set(key, value),
            Some(token) => {
                let code = token.code("value", [self.full(key).as_bytes(), value]).finalize().into_bytes();
                self.connection.set(key, &[code.as_slice(), value].concat())
            }
        }
    }

    /// The values of keys, all in one question. It waits for those that are not there yet.
    ///
    /// # Errors
    /// When the store does not answer, a key does not come, or a value is not from a process that knows the token.
    pub fn get(&self, keys: &[String]) -> Result<Vec<Vec<u8>>> {
        let values = self.connection.get(keys)?;
        let Some(token) = &self.token else { return Ok(values) };
        let opened = keys.iter().zip(values).map(|(key, sealed)| {
            let opened = sealed.split_at_checked(CODE).filter(|(code, value)| {
                let own = token.code("value", [self.full(key).as_bytes(), value]);
                own.verify_slice(code).is_ok()
            });
            let (_, value) = opened.ok_or_else(|| {
                failed(format!("`{key}` in the job's store is not from a process of this job")).hint(format!(
                    "another program wrote to the store's port, or {TOKEN} is not the same for all processes"
                ))
            })?;
            Ok(value.to_vec())
        });
        opened.collect()
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn has(&self, key: &str) -> Result<bool> {
        self.connection.has(key)
    }

    /// Adds to a number that starts at 0, and returns what it is now. Numbers are not authenticated.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        self.connection.add(key, amount)
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.connection.delete(key)
    }

    /// Waits until all of `keys` are there, and returns whether they came within `timeout`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn wait(&self, keys: &[String], timeout: Duration) -> Result<bool> {
        self.connection.wait(keys, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    #[test]
    fn values_of_whoever_does_not_know_the_token_are_refused() {
        let token = Token::random().unwrap();
        assert_ne!(token, Token::random().unwrap());
        assert!(!format!("{token:?}").contains(token.text()));
        let ours = Store::open("127.0.0.1", 0, Keeper::Us, TIME, "senet/", Some(&token)).unwrap();
        let port = ours.connection().port();
        let another = Store::open("127.0.0.1", port, Keeper::Another, TIME, "senet/", Some(&token)).unwrap();
        let [key, other] = ["gather/0/0".to_owned(), "gather/1/0".to_owned()];
        for value in [b"".as_slice(), b"\0\"runs/first\""] {
            ours.set(&key, value).unwrap();
            assert_eq!(another.get(std::slice::from_ref(&key)).unwrap(), [value]);
        }

        // A stranger who has listed the keys can write all of them, and copy values from one to another.
        let stranger = dist::Store::open("127.0.0.1", port, Keeper::Another, TIME, &ours.prefix).unwrap();
        let sealed = stranger.get(std::slice::from_ref(&key)).unwrap().remove(0);
        assert!(
            !String::from_utf8_lossy(&sealed).contains(token.text()) && !ours.prefix.contains(token.text())
        );
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        for planted in
            [b"\"elsewhere/planted\"".to_vec(), Vec::new(), changed, [sealed.as_slice(), b"x"].concat()]
        {
            stranger.set(&key, &planted).unwrap();
            let error = another.get(std::slice::from_ref(&key)).unwrap_err().to_string();
            assert!(error.contains("not from a process of this job"), "{error}");
        }
        stranger.set(&other, &sealed).unwrap();
        assert!(another.get(std::slice::from_ref(&other)).is_err(), "a value of another key");

        // With another token, or none, nothing of the job's is found.
        for token in [None, Some(&Token::given("another"))] {
            let store = Store::open("127.0.0.1", port, Keeper::Another, TIME, "senet/", token).unwrap();
            assert!(!store.has(&key).unwrap());
        }
    }
}
