# inspect, convert, synth
