# the bundled demo model
demodir = $(pkgdatadir)/demo
dist_demo_DATA = \
	%D%/demo/README.md \
	%D%/demo/config.json \
	%D%/demo/corpus.py \
	%D%/demo/generation_config.json \
	%D%/demo/golden.py \
	%D%/demo/golden.safetensors \
	%D%/demo/model.safetensors \
	%D%/demo/questions.json \
	%D%/demo/questions.py \
	%D%/demo/tokenizer.json \
	%D%/demo/tokenizer.py \
	%D%/demo/tokenizer_config.json \
	%D%/demo/train.py
