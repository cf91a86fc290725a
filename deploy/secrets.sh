#!/bin/sh
# Makes the secrets that compose.yaml wants, in deploy/secrets, once; what is there is kept.
# The folder is its owner's alone; the files can be read by whom they are mounted for, whose user is not ours.
set -eu
folder="$(dirname "$0")/secrets"
if [ -e "$folder" ]; then
    echo "$folder is there already" >&2
    exit 1
fi
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
key=$(random) database=$(random) access=$(random) secret=$(random) callbacks=$(random)
mkdir -m 700 "$folder"
printf '%s' "$database" > "$folder/postgres_password"
cat > "$folder/s3.json" <<END
{"identities": [{"name": "lazypix", "credentials": [{"accessKey": "$access", "secretKey": "$secret"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
END
cat > "$folder/lazypix.toml" <<END
api_keys = ["$key"]
catalog = "postgresql://lazypix:$database@postgres/lazypix"
store_access_key = "$access"
store_secret_key = "$secret"
callback_secret = "$callbacks"
END
chmod 644 "$folder"/*
echo "made $folder; the key for writes is api_keys in lazypix.toml"
