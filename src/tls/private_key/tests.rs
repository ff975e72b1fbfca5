use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

const CLEAR: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEINExhAnchprUKuKKuqCt1i5lDLqDa3PXU4tN8cd7q1bCoAoGCCqGSM49
AwEHoUQDQgAEKXnNL6q2BZbnXSwTk+lBYaurQ3ltZeUwpyyhyLWli0NPEUb1h7tO
i0JdTpzEpUxC3urZRxFxrslJkQGwK0NQaw==
-----END EC PRIVATE KEY-----
";
/// The same key by `openssl pkcs8 -topk8 -v2 aes-256-cbc -passout pass:secret`.
const LOCKED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAh2MiL72ber9gICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEEg1qYLJvcoOOYJwZBh95SAEgZAO
He1sI4P9gB7/AnidO9dR8ZHohVsijCJ7wnYCPiqVEmbM0QIWop8yN8pl/eUjYwEA
vuB8G4SqsY8iqmadjt0o6HO82F3a+/1EX5CM59Ksa0aXKVTZKlhdRlIm1SVG+pm+
ZA7QlCTrMQLXBysC0eE9ECtzh3ZURoN/gHRAs6DfznArwBXH9dZQt93mm99YHqI=
-----END ENCRYPTED PRIVATE KEY-----
";
/// The same key by `openssl pkcs12 -export -passout pass:secret`.
const BUNDLE: &str = "MIIELAIBAzCCA+IGCSqGSIb3DQEHAaCCA9MEggPPMIIDyzCCAoIGCSqGSIb3DQEHBqCCAnMwggJvAgEAMIICaAYJKoZIhvcNAQcB\
    MFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAheOoblDy0kEwICCAAwDAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEJ5G\
    AjAe5R81JFI73Ad4XU6AggIAF79klX2wFEf0me0UrNYGy5yjcmYfKCcrIPtoEu+h43wT49lUoEK8hKFBAFnz/Fl86Nm2iWd/1HNe\
    RlZsVTx01PzTDkv5tO9kpHNgt9KirvTvX2Gh9kmwF7auFgxX2gdmhxgaqZmLuphqXLE0pnueOaH1zV9aQxeBSJdG+PYnV9XM+PdL\
    0fxnkFrowKi6mGM2OX/Gn0Wfq5cFLhFPRs0RjCsdeKg38L9FHwzXggB2fKUs3Kt4eEkhFSQ4HtgkwoFUgSi8iWKkzstXbsTHLz8w\
    yy3pcpYAE9sFh9cndaH6eyukXWB1Ja/pYiyy56peR+xtBcFtSJvfy7K77yrotP5Ht4KA3H9sMOoGGqjZbT32gvZ8A+QYpr5qB2Sg\
    gQW1nCn4Odg9bzG4T0Cg2XguLniebQcsaN8SBZYveh0JgWlCNRuJkBOJaWYhg0NAV4IjRnwTbbVLpl87kIAUj00y6jMfkqg/M2sw\
    z1NsvvJfhsa4O1mPMz5ux43wpUa8DXIhkeXTDuiDxMLDvC2eZxvl+Rr63CmrIevq+Hv+ZcMHfQ79C+8Oir65yupzXvQDAJkcMHun\
    vSPNrAxLegp00C2vqWPlOeIjud33LKnVTFumUcc+Ym02L6MLs7ZeXjrnMv7UV55lVHg1loSd1qwWAwQoOHwCUA0QQeShHYDjiV/8\
    Rh1yLmcwggFBBgkqhkiG9w0BBwGgggEyBIIBLjCCASowggEmBgsqhkiG9w0BDAoBAqCB7zCB7DBXBgkqhkiG9w0BBQ0wSjApBgkq\
    hkiG9w0BBQwwHAQIfW6GvRWrguQCAggAMAwGCCqGSIb3DQIJBQAwHQYJYIZIAWUDBAEqBBBCecPM4kWdTtrjYpu26hvnBIGQ+AFH\
    vhyYJppORcAKVoMeNdKm4w05Nhq0o7mJJR3pVZJGkqR9UYAUCQHi+TUe1ISJ+Cvz5sFkap9JdkRe/SJP+07jOLIfUIN+cAzsMPXu\
    LqAnTETgeCAV3oPslDWyn+DapvGGQddFHlY/W6migrwYUUAw2ILijLtfH0nSLhEPffzxnPrc1eGGmfvE8Q3902LoMSUwIwYJKoZI\
    hvcNAQkVMRYEFDT8OO9x7dCXGBvya694uhlEJBWnMEEwMTANBglghkgBZQMEAgEFAAQg27m0nmTvIiCwbSxJ/SgrCkshQuYgm69+\
    wCQwVOwH96UECDDOq2mTn20MAgIIAA==";
/// The same with `-legacy`.
const LEGACY: &str = "MIIDogIBAzCCA2gGCSqGSIb3DQEHAaCCA1kEggNVMIIDUTCCAkcGCSqGSIb3DQEHBqCCAjgwggI0AgEAMIICLQYJKoZIhvcNAQcB\
    MBwGCiqGSIb3DQEMAQYwDgQIQvTPi5+J4EcCAggAgIICAI9YlwfFghSF50wqjdl0mM0EoBa5JNok0vWFs7myRgVZrpLWCc5FCmsV\
    aOXT9hsUeLJVugdYtQnPi1YilEGg+2TplFZ5Uz8RSa5AUvm/I4DTlw/rOEzjm5RdYi9H+RikqtFV/orXjGLH9PmDUZZvBdgo65e4\
    2aiK2JYVP6EfZt03CUja0XRwz5cxWlw9HWnYh3Eysgz5KpviB78m7+QBQAhcxfodbi2N8bXdmxexN5E2aFomQSB8qp/BH8copcVK\
    A3Ik3mEsWyhfDcC8R6TDIO06KkbmK+T4yIKQWUiRMrgOyDSQ2LVcBCnT9Tftc3kTLXV4o9iBuxDVy/afuH6BjydbIojHR6CexUjD\
    xjw/Kocz8mlRNA4QDD3itwMiTmq2xTntbuSUfIQBx70ev5nAaUr1kdXjpspu5BvZ6VxYmjRe4i5NnAs6q495u/o1tkRJ4ik5pp0a\
    h+ZR8sVo+Fg8eNp/O09cSbIJRd7cyYrqif5GUcaMVU366u9mX9mt+xJhxvfX0BS/HxYi7t+M+o2HagIKA9QPUkCu4hLlUtmlF+op\
    pAsyj9LLjgwIxqW8vWcEkeNV4ViXWUUV9DCmZU6vqmQGYAHsfAvJ/EwCdjlplMOZ8VPn1xEvXN13msOTmzwqp66ZJ5q3nTBz1NMc\
    RKivb+2wcNSDAgIi1dTSV9hDz4t4MIIBAgYJKoZIhvcNAQcBoIH0BIHxMIHuMIHrBgsqhkiG9w0BDAoBAqCBtDCBsTAcBgoqhkiG\
    9w0BDAEDMA4ECBLRka9PGHX6AgIIAASBkPEzwjBf5KjCAw7w+wAjxjTxR3/6j18UVgnzUIgZ2IfHOKnIr2NglviWbAmArY1iXm8I\
    4TDoobbPH6c6Yq9C5yV46BKB2cZTxYr7seybe8FEBBJe/wKccwhZSqi+PzEF3TnvzaQ5j33TOfxMySRlR9A5WN8+2TZj6MPDWz/o\
    77lauAoAJaa9JlHFY2y+3j3RyzElMCMGCSqGSIb3DQEJFTEWBBQ0/Djvce3Qlxgb8muveLoZRCQVpzAxMCEwCQYFKw4DAhoFAAQU\
    Xxg5hNC5djmWfx5IJttdbT1WfPsECPEpEllxgB+TAgIIAA==";

fn key(pem: &str, password: &str) -> Result<Vec<u8>, KeyError> {
    let key = read(pem.as_bytes(), password.as_bytes())?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    Ok(key.public_key().unwrap().to_vec())
}

#[test]
fn a_key_is_opened_with_its_password() {
    let clear = key(CLEAR, "").unwrap();
    assert_eq!(key(LOCKED, "secret").unwrap(), clear);
    assert_eq!(key(LOCKED, "wrong"), Err(KeyError::Locked));
    assert_eq!(key(LOCKED, ""), Err(KeyError::Locked));
}

#[test]
fn a_bundle_has_the_key_and_its_certificate() {
    let clear = key(CLEAR, "").unwrap();
    for bundle in [BUNDLE, LEGACY] {
        let der = STANDARD.decode(bundle).unwrap();
        let opened = read_bundle(&der, "secret").unwrap();
        assert_eq!(opened.chain.len(), 1);
        let public = rustls::crypto::aws_lc_rs::sign::any_supported_type(&opened.key).unwrap();
        assert_eq!(public.public_key().unwrap().to_vec(), clear);
        assert_eq!(read_bundle(&der, "wrong").err(), Some(KeyError::Locked));
    }
    assert_eq!(read_bundle(b"nonsense", "secret").err(), Some(KeyError::Locked));
}
