# API, scheduler, program
