package chaos
const repo = "chaos"
