"""The tables of coefficients and models that come with the toolkit, one TOML file each."""
