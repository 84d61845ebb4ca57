# The assertion about an option that a configuration must not use, unless it does not.
{
  name,
  used ? true,
  reason ? "firn's stage 1 does not support it",
  instead, # a sentence without its full stop
}:

{
  assertion = !used;
  message = "${name} is set, but ${reason}. ${instead}.";
}
