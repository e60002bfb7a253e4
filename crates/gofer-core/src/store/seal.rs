//! Encryption at rest: AES-256-GCM, with a key that is given, or kept in a file beside the store
//! that only its owner can read.

use std::fmt::Display;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::file;
use crate::certificates::random_key;
use crate::files;
use gofer_sdk::{Error, Result};

pub(super) struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Seal {
    pub(super) fn new(key: &[u8; 32]) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key)
            .map_err(|_| Error::internal("the key of the store's secrets cannot be used"))?;
        Ok(Self { key: LessSafeKey::new(key), random: SystemRandom::new() })
    }

    /// With the key that is set for a store. The file beside the store may hold no other one, which
    /// would be used as soon as none is set.
    pub(super) fn given(key: &[u8; 32], store: &Path) -> Result<Self> {
        let path = files::with_suffix(store, ".key");
        let text = std::fs::read_to_string(&path);
        if text.is_ok_and(|text| key_from_hex(text.trim()).as_ref() != Some(key)) {
            return Err(file::refused(format!(
                "a key of the store `{}` is set (GOFER_ENCRYPTION_KEY, `encryption_key`), and \
                 `{}` holds another one; set none if the store was made with the one in the file, \
                 or else move that file away",
                store.display(),
                path.display()
            )));
        }
        Self::new(key)
    }

    /// With the key in the file beside a store, which is created with a new store.
    ///
    /// Once the store is open, [`KeyFile::keep`] has to be called.
    pub(super) fn beside(store: &Path) -> Result<(Self, KeyFile)> {
        let path = &files::with_suffix(store, ".key");
        let shown = path.display();
        if std::fs::metadata(path).is_err_and(|error| error.kind() == NotFound) {
            if file::exists(store)? {
                // Another key would make what is encrypted look damaged.
                return Err(file::refused(format!(
                    "the encryption key of the store `{}` is missing: there is no `{shown}`; put \
                     that file back, from a backup if need be, or set the key that the store was \
                     made with (GOFER_ENCRYPTION_KEY, `encryption_key`); without the key, start \
                     with a new store in another file",
                    store.display()
                )));
            }
            let key = random_key().map_err(|it| Error::internal(it.message().to_owned()))?;
            // If another process is faster, its key is the one that counts.
            files::create(path, format!("{key}\n").as_bytes(), 0o600).map_err(|error| {
                file::refused(format!(
                    "the store `{}` cannot be created: cannot create `{shown}`: {error}",
                    store.display()
                ))
            })?;
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::internal(format!("cannot read `{shown}`: {error}")))?;
        let key = key_from_hex(text.trim()).ok_or_else(|| {
            file::refused(format!("`{shown}` must hold a key: 64 hexadecimal digits"))
        })?;
        Ok((Self::new(&key)?, KeyFile { path: path.clone(), key }))
    }

    /// The encrypted text, bound to its place: it cannot be decrypted at another one.
    pub(super) fn seal(&self, place: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        // One nonce for each secret that is put: random ones do not collide.
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = text.to_vec();
        let once = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(once, Aad::from(place), &mut sealed).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    /// `None` if the text was encrypted with another key or for another place, or was changed.
    pub(super) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = sealed.to_vec();
        let once = Nonce::assume_unique_for_key(*nonce);
        let text = self.key.open_in_place(once, Aad::from(place), &mut text).ok()?;
        Some(text.to_vec())
    }
}

/// The file that a key was read from.
pub(super) struct KeyFile {
    path: PathBuf,
    key: [u8; 32],
}

impl KeyFile {
    /// What the file holds.
    pub(super) fn text(&self) -> String {
        format!("{}\n", hex::encode(self.key))
    }

    /// Makes sure that the file is still there, now that nobody else can open the store. Another
    /// process whose start failed may have removed the files of its new store, of which this was one.
    pub(super) fn keep(&self) -> Result<()> {
        let Self { path, key } = self;
        let shown = path.display();
        let lost = |why: &dyn Display| file::refused(format!("cannot keep `{shown}`: {why}"));
        files::create(path, self.text().as_bytes(), 0o600).map_err(|error| lost(&error))?;
        let text = std::fs::read_to_string(path).map_err(|error| lost(&error))?;
        if key_from_hex(text.trim()).as_ref() == Some(key) {
            return Ok(());
        }
        Err(lost(&"it holds another key now; start again"))
    }
}

/// 64 hexadecimal digits as a key.
pub(crate) fn key_from_hex(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).ok()?;
    Some(key)
}
