//! Certificates and their private keys, from PEM or DER in memory. Nothing here reads a file.
