# container readers, traits, weight map
