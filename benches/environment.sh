# Sourced: `environment NAME REQUIREMENTS` makes a virtual environment in the cache, or leaves it if nothing has changed.
environment() {
    folder="${XDG_CACHE_HOME:-$HOME/.cache}/datafusion-predict/venv-$1"
    if ! cmp -s "$2" "$folder/requirements.txt"; then
        python3 -m venv --clear "$folder"
        "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$2"
        cp "$2" "$folder/requirements.txt"
    fi
}
