//! Which statements must not be repeated: in the history, or on standard error.

use datafusion_predict::StorageOptions;

/// Whether `sql` may hold credentials: options of a place, as in `OPTIONS ('http.token' '…')`, or a URL with a password
/// or a query.
pub(crate) fn may_be_in(sql: &str) -> bool {
    let sql = sql.to_lowercase();
    let in_url = |rest: &str| {
        let url = &rest[..rest.find(['\'', '"']).unwrap_or(rest.len())];
        let authority = url.split(['/', '?']).next().unwrap_or_default();
        url.contains('?') || authority.contains('@')
    };
    StorageOptions::PREFIXES.iter().any(|prefix| sql.contains(&format!("'{prefix}")))
        || sql.split("://").skip(1).any(in_url)
}

#[cfg(test)]
mod tests {
    use super::may_be_in;

    #[test]
    fn statements_with_credentials_are_told() {
        for secret in [
            "CREATE MODEL m FROM 'https://h/m' OPTIONS ('http.token' 'x')",
            "create model m from 'https://ana:pw@h/m'",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/t' OPTIONS ('AWS.access_key_id' 'x')",
            "SELECT * FROM 'https://h/t.csv?sig=x'",
        ] {
            assert!(may_be_in(secret), "{secret}");
        }
        for plain in ["SELECT 'a@b', predict('m@champion', 1)", "CREATE MODEL m FROM 'hf://owner/repo@v2/m.onnx'"] {
            assert!(!may_be_in(plain), "{plain}");
        }
    }
}
